"""Expressions, valence and arousal, and action units read off the codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from ffplug.errors import ConfigError, DataError
from ffplug_latentface.models.diffusion import EMBEDDINGS
from ffplug_latentface.registry import MODELS

TASKS = ("va", "expr", "au")


@MODELS.register_module()
class LinearProbe(BaseModel):
    """Linear heads over frozen embeddings, or over an encoder that is trained with them.

    A batch norm, then one linear layer without bias for all tasks. Losses are cross-entropy for expressions, smooth L1
    for valence and arousal, binary cross-entropy for action units, each over the samples whose label is known. Fields
    of labels and predictions are those of ``ffplug_fpnmaa.AffectSample``, so that its data sets and its metric fit.

    Args:
        encoder: config of :class:`RepresentationDiffusion`, or of what else has ``embed(images, kind)``.
        tasks: outputs by task: ``va`` 2, ``expr`` the number of classes, ``au`` that of units.
        embedding: which of :data:`EMBEDDINGS`.
        finetune: train the encoder too.
        data_preprocessor: config of what batches the pictures.
        init_cfg: see MMEngine.

    Raises:
        ConfigError: there is no such embedding or task, or a task has no outputs.

    Example:
        dict(
            type="ffplug_latentface.LinearProbe",
            encoder=dict(
                type="ffplug_latentface.RepresentationDiffusion",
                autoencoder=dict(type="ffplug_latentface.LatentFaceAutoencoder", width=8, code=16),
                width=16,
            ),
            tasks=dict(va=2, expr=7, au=12),
        )
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        tasks: Mapping[str, int],
        embedding: str = "expression",
        finetune: bool = False,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(dict(data_preprocessor or dict(type="ffplug_latentface.FaceDataPreprocessor")), init_cfg)
        if embedding not in EMBEDDINGS:
            raise ConfigError(f"embedding={embedding!r}: expected one of {', '.join(EMBEDDINGS)}")
        if not tasks or not set(tasks) <= set(TASKS) or min(tasks.values()) < 1 or tasks.get("va", 2) != 2:
            raise ConfigError(f"tasks={dict(tasks)}: expected some of va=2, expr=CLASSES and au=UNITS")
        self.encoder = MODELS.build(dict(encoder))
        self.tasks = {task: tasks[task] for task in TASKS if task in tasks}
        self.embedding, self.finetune = embedding, finetune
        autoencoder = self.encoder.autoencoder
        if not finetune:
            self.encoder.requires_grad_(False)
        else:
            autoencoder.networks.albedo.encoder.requires_grad_(True)
            autoencoder.networks.depth.encoder.requires_grad_(True)
        length = autoencoder.code * (2 if embedding == "codes" else 4)
        self.norm = nn.BatchNorm1d(length)
        self.head = nn.Linear(length, sum(self.tasks.values()), bias=False)

    def checkpoint_exclude_prefixes(self) -> tuple[str, ...]:
        """What checkpoints leave out: the perceptual loss of the autoencoder."""
        return ("encoder.autoencoder.perceptual.",)

    def train(self, mode: bool = True) -> LinearProbe:
        """Training mode, of the encoder only where it is trained."""
        super().train(mode)
        if not self.finetune:
            self.encoder.eval()
        return self

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = "tensor") -> Any:
        """Run the networks.

        Args:
            inputs: N×3×S×S in -1..1.
            data_samples: of the batch; for ``mode="loss"`` with ``gt_va``, ``gt_expr`` or ``gt_au`` where known.
            mode: ``tensor`` gives outputs by task, each N×K, ``predict`` the samples with ``pred_va``, ``pred_expr``,
                ``pred_expr_probability`` and ``pred_au``, ``loss`` the loss terms.

        Raises:
            ConfigError: there is no such mode.
            DataError: no sample of the batch has a label of the tasks, or a label is none of the task's.
        """
        if mode not in ("tensor", "predict", "loss"):
            raise ConfigError(f"mode={mode!r}: expected 'tensor', 'predict' or 'loss'")
        with torch.set_grad_enabled(self.finetune and torch.is_grad_enabled()):
            embedded = self.encoder.embed(inputs, self.embedding)
        parts = self.head(self.norm(embedded)).float().split(list(self.tasks.values()), 1)
        outputs = dict(zip(self.tasks, parts, strict=True))
        if mode == "tensor":
            return outputs
        if mode == "loss":
            return self._losses(outputs, data_samples or [])
        for number, sample in enumerate(data_samples):
            if "va" in outputs:
                sample.pred_va = outputs["va"][number].clamp(-1, 1)
            if "expr" in outputs:
                sample.pred_expr_probability = outputs["expr"][number].softmax(0)
                sample.pred_expr = outputs["expr"][number].argmax()
            if "au" in outputs:
                sample.pred_au = outputs["au"][number].sigmoid()
        return data_samples

    def _losses(self, outputs: Mapping[str, Tensor], samples: list) -> dict[str, Tensor]:
        losses, known = {}, 0
        for task, found in outputs.items():
            labels = [sample.get(f"gt_{task}") for sample in samples]
            rows = [row for row, label in enumerate(labels) if label is not None]
            known += len(rows)
            if not rows:
                losses[f"loss_{task}"] = 0.0 * found.sum()
                continue
            true = torch.stack([labels[row] for row in rows]).to(found.device)
            found = found[rows]
            if task == "expr":
                self._check(task, true.dim() == 1 and int(true.max()) < found.shape[1], samples[rows[0]])
                losses["loss_expr"] = nn.functional.cross_entropy(found, true)
            else:
                self._check(task, true.shape == found.shape, samples[rows[0]])
                distance = {"va": nn.functional.smooth_l1_loss, "au": nn.functional.binary_cross_entropy_with_logits}
                losses[f"loss_{task}"] = distance[task](found, true.float())
        if not known:
            names = ", ".join(str(sample.get("sample_id")) for sample in samples[:4]) or "no samples"
            raise DataError(f"no label of {', '.join(outputs)} to train on: {names}")
        return losses

    def _check(self, task: str, fits: bool, sample: Any) -> None:
        if not fits:
            raise DataError(
                f"labels gt_{task} of {sample.get('dataset')} do not fit tasks={self.tasks}: set the task's outputs"
            )
