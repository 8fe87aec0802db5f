"""FPN-MAA as a model of MMEngine: training losses, predictions, and what a person calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor, nn

from ffplug.apis.models import load_weights
from ffplug.errors import ConfigError, DataError
from ffplug_fpnmaa.labels import LIMIT
from ffplug_fpnmaa.models.backbone import build_backbone
from ffplug_fpnmaa.models.head import MultiTaskAffectHead
from ffplug_fpnmaa.registry import MODELS
from ffplug_fpnmaa.structures import AffectSample

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@MODELS.register_module()
class AffectPreprocessor(BaseDataPreprocessor):
    """Stack the pictures of a batch, move them to the device, and normalise them.

    Args:
        mean: subtracted, of RGB in 0..1.
        std: what is then divided by.
        non_blocking: copy to the device asynchronously.

    Example:
        dict(type="ffplug_fpnmaa.AffectPreprocessor")
    """

    def __init__(self, mean: Sequence[float] = MEAN, std: Sequence[float] = STD, non_blocking: bool = False) -> None:
        super().__init__(non_blocking)
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Turn a collated batch into model inputs.

        Args:
            data: ``inputs``, 3×H×W uint8 (or floating-point in 0..1) each, and ``data_samples``.
            training: makes no difference.

        Returns:
            ``inputs`` N×3×H×W, normalised, and ``data_samples``.

        Raises:
            DataError: the pictures of the batch differ in size.
        """
        data = self.cast_data(data)
        inputs = data["inputs"]
        sizes = {tuple(item.shape) for item in inputs}
        if len(sizes) > 1:
            raise DataError(
                f"pictures of different sizes in one batch: {sorted(sizes)}; put dict(type='ffplug_fpnmaa.ResizeFace', "
                "size=128) into the pipeline"
            )
        inputs = inputs if isinstance(inputs, Tensor) else torch.stack(tuple(inputs))
        return {**data, "inputs": self.normalise(inputs), "data_samples": data.get("data_samples")}

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise RGB N×3×H×W, uint8 or floating-point in 0..1."""
        images = images.float() if images.is_floating_point() else images.float() / 255
        return (images - self.mean) / self.std


@MODELS.register_module()
class AffectFPN(BaseModel):
    """A backbone, a neck, and heads for valence-arousal, expression and action units.

    Args:
        backbone: config of anything that gives maps of several strides, such as ``mmpretrain.ResNet``; what gives one
            map or vector will do.
        neck: config of :class:`PyramidNeck`, :class:`StageMeans` or any neck of mmpretrain; None takes the backbone's
            maps.
        head: config of :class:`MultiTaskAffectHead`.
        losses: configs of the terms of the training loss, called with the outputs by task and the samples.
        image_size: side of the pictures that it is made for, in pixels; it takes others, too.
        data_preprocessor: config of what batches and normalises the samples.
        pretrained: weights to start from: a name of released ones or a path; None draws them.
        init_cfg: see MMEngine.

    Raises:
        ConfigError: a part can't be imported or built.
        CheckpointError: the weights to start from are not on this machine, or another network's.

    Example:
        dict(
            type="ffplug_fpnmaa.AffectFPN",
            backbone=dict(type="mmpretrain.ResNet", depth=18, base_channels=8, stem_channels=8, out_indices=(2, 3)),
            neck=dict(type="ffplug_fpnmaa.PyramidNeck", in_channels=[32, 64], out_channels=8),
            head=dict(type="ffplug_fpnmaa.MultiTaskAffectHead", channels=(8, 8, 8), tasks=dict(va=2, expr=7, au=12)),
        )
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        neck: Mapping[str, Any] | None,
        head: Mapping[str, Any],
        losses: Sequence[Mapping[str, Any]] = (),
        image_size: int = 128,
        data_preprocessor: Mapping[str, Any] | None = None,
        pretrained: str | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(dict(data_preprocessor or dict(type="ffplug_fpnmaa.AffectPreprocessor")), init_cfg)
        self.image_size = image_size
        self.backbone = build_backbone(backbone)
        self.neck = None if neck is None else MODELS.build(dict(neck))
        self.head: MultiTaskAffectHead = MODELS.build(dict(head))
        channels = getattr(self.neck, "channels", None)
        if channels is not None and channels != self.head.channels:
            raise ConfigError(
                f"head.channels={self.head.channels}: the neck gives levels of {channels} channels; make them agree"
            )
        self.losses = nn.ModuleList(MODELS.build(dict(loss)) for loss in losses)
        if pretrained is not None:
            load_weights(self, pretrained)

    def checkpoint_exclude_prefixes(self) -> tuple[str, ...]:
        """Checkpoints hold everything."""
        return ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """What the model tells."""
        return tuple(self.head.tasks)

    def levels(self, images: Tensor) -> list[Tensor]:
        """The vectors that the heads see, N×C_l each.

        Args:
            images: N×3×H×W, normalised.
        """
        stages = self.backbone(images)
        stages = (stages,) if isinstance(stages, Tensor) else tuple(stages)
        if hasattr(self.neck, "means"):
            return self.neck.means(stages)
        found = stages if self.neck is None else self.neck(stages)
        found = (found,) if isinstance(found, Tensor) else tuple(found)
        return [level.flatten(2).mean(dim=2) if level.ndim > 2 else level for level in found]

    def embed(self, images: Tensor) -> Tensor:
        """The embedding, N×C: all levels one after the other (1280 numbers in FPN-MAA).

        Args:
            images: N×3×H×W RGB, uint8 or floating-point in 0..1.
        """
        return torch.cat(self.levels(self.data_preprocessor.normalise(images.to(self._device()))), dim=1)

    def analyse(self, images: Tensor, flip: bool = False) -> dict[str, Tensor]:
        """What faces show.

        Args:
            images: N×3×H×W RGB, uint8 or floating-point in 0..1: one face in each, filling it.
            flip: mean with what their mirror images show.

        Returns:
            By task: ``va`` N×2 in ±0.99, ``expr`` N×K probabilities, ``au`` N×U probabilities; ``va_bins``
            N×2×B probabilities, where the head has such bins.
        """
        return self.tell(self.data_preprocessor.normalise(images.to(self._device())), flip)

    def tell(self, images: Tensor, flip: bool = False) -> dict[str, Tensor]:
        """As :meth:`analyse`, of normalised pictures N×3×H×W on the model's device."""
        found = self._told(self.head(self.levels(images)))
        if flip:
            mirrored = self._told(self.head(self.levels(images.flip(3))))
            found = {task: (value + mirrored[task]) / 2 for task, value in found.items()}
        return found

    def _thresholds(self, values: Tensor) -> Tensor:
        return values.new_tensor(self.head.thresholds)

    def _device(self) -> torch.device:
        return self.data_preprocessor.mean.device

    @staticmethod
    def _told(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        forms = {
            "va": lambda x: x.clamp(-LIMIT, LIMIT),
            "expr": lambda x: x.softmax(dim=1),
            "au": torch.sigmoid,
            "va_bins": lambda x: x.softmax(dim=2),
        }
        return {task: forms[task](output.float()) for task, output in outputs.items()}

    def forward(
        self, inputs: Tensor, data_samples: Sequence[AffectSample] | None = None, mode: str = "tensor"
    ) -> Tensor | dict[str, Tensor] | Sequence[AffectSample]:
        """One step, as MMEngine calls it.

        Args:
            inputs: N×3×H×W, normalised.
            data_samples: one for each picture; for ``loss`` with what is known of it.
            mode: ``tensor`` gives the raw outputs of all tasks side by side (FPN-MAA: N×21), ``loss`` the terms of the
                training loss, ``predict`` the samples with their predictions.
        """
        outputs = self.head(self.levels(inputs))
        if mode == "tensor":
            return torch.cat([outputs[task] for task in self.tasks], dim=1)
        if mode == "loss":
            if not len(self.losses):
                raise ConfigError("the model has no losses: give its config `losses`")
            terms: dict[str, Tensor] = {}
            for loss in self.losses:
                terms.update(loss({task: output.float() for task, output in outputs.items()}, data_samples or ()))
            return terms
        told = self._told(outputs)
        samples = [AffectSample() for _ in inputs] if data_samples is None else data_samples
        for index, sample in enumerate(samples):
            for task, value in told.items():
                if task == "expr":
                    sample.pred_expr, sample.pred_expr_probability = value[index].argmax(), value[index]
                else:
                    sample.set_field(value[index], f"pred_{task}")
            if "au" in told:
                sample.pred_au_present = (told["au"][index] > self._thresholds(told["au"])).float()
        return samples

    def example_batch(self, batch_size: int = 2) -> dict[str, Any]:
        """A small batch as a data loader would give it, always the same: pictures of 64×64, some labels missing."""
        draw = torch.Generator().manual_seed(0)
        inputs, samples = [], []
        for number in range(batch_size):
            inputs.append(torch.randint(0, 256, (3, 64, 64), generator=draw, dtype=torch.uint8))
            sample = AffectSample(metainfo=dict(sample_id=f"example/{number}", dataset="example", sequence="example"))
            sample.gt_va = 2 * torch.rand(2, generator=draw) - 1
            units, classes = self.head.tasks.get("au", 12), self.head.tasks.get("expr", 7)
            if number % 2 == 0:
                sample.gt_expr = torch.tensor(int(torch.randint(classes, (), generator=draw)))
                sample.gt_au = (torch.rand(units, generator=draw) > 0.5).float()
            sample.teacher_va = 2 * torch.rand(2, generator=draw) - 1
            sample.teacher_expr = torch.rand(classes, generator=draw).softmax(dim=0)
            sample.teacher_au = torch.rand(units, generator=draw)
            if self.head.va_bins:
                sample.teacher_va_bins = torch.rand(2, self.head.va_bins, generator=draw).softmax(dim=1)
            samples.append(sample)
        return dict(inputs=inputs, data_samples=samples)
