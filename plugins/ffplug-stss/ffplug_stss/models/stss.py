"""STSS as a model of MMEngine: training losses, predictions, and what a person calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor

from ffplug.apis.models import load_weights
from ffplug.errors import ConfigError, DataError
from ffplug.models.export import ExportCase
from ffplug.models.layers import fixed_weights
from ffplug.models.padding import pad
from ffplug_stss.channels import CHANNELS, CONVENTIONS, HISTORY, SCALE, described, unpack
from ffplug_stss.models.network import enlarge
from ffplug_stss.registry import MODELS
from ffplug_stss.structures import SupersampleSample


@MODELS.register_module()
class SupersampleDataPreprocessor(BaseDataPreprocessor):
    """Stack packed inputs, move them to the device, and repeat their last rows and columns up to a multiple.

    Args:
        multiple: what the sides must be multiples of.
        non_blocking: copy to the device asynchronously.

    Example:
        dict(type="ffplug_stss.SupersampleDataPreprocessor")
    """

    def __init__(self, multiple: int = 8, non_blocking: bool = False) -> None:
        super().__init__(non_blocking)
        self.multiple = multiple

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Turn a collated batch into model inputs.

        Args:
            data: ``inputs``, a list of float tensors 28×H×W, and ``data_samples``.
            training: makes no difference.

        Returns:
            ``inputs`` N×28×H'×W' and ``data_samples``, whose metainfo gets ``input_shape`` (H, W).

        Raises:
            DataError: the inputs of the batch differ in size.
        """
        data = self.cast_data(data)
        inputs, samples = data["inputs"], data.get("data_samples")
        sizes = {tuple(item.shape) for item in inputs}
        if len(sizes) > 1:
            raise DataError(f"inputs of different sizes in one batch: {sorted(sizes)}; crop them alike")
        inputs = (inputs if isinstance(inputs, Tensor) else torch.stack(tuple(inputs))).float()
        for sample in samples or []:
            sample.set_metainfo({"input_shape": tuple(inputs.shape[2:])})
        return {**data, "inputs": pad_to_multiple(inputs, self.multiple), "data_samples": samples}


def pad_to_multiple(x: Tensor, multiple: int = 8) -> Tensor:
    """Repeat the last row and column of N×C×H×W until the sides are multiples."""
    bottom, right = (-side % multiple for side in x.shape[2:])
    return pad(x, (0, right, 0, bottom)) if bottom or right else x


@MODELS.register_module()
class STSS(BaseModel):
    """Space-time supersampling (STSS, AAAI 2024): one network for super-sampled and extrapolated frames.

    Args:
        network: config of the network, see :class:`STSSNet`.
        losses: configs of the terms of the training loss, called with prediction, target and mask.
        data_preprocessor: config of what batches the samples.
        pretrained: weights to start from: a name of released ones (``stss_arena``) or a path; None draws them.
        init_cfg: see MMEngine.

    Raises:
        CheckpointError: the weights to start from are not on this machine, or another network's.

    Example:
        dict(
            type="ffplug_stss.STSS",
            network=dict(type="ffplug_stss.STSSNet"),
            losses=[dict(type="ffplug_stss.ReshadingLoss")],
        )
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        losses: Sequence[Mapping[str, Any]] = (),
        data_preprocessor: Mapping[str, Any] | None = None,
        pretrained: str | None = None,
        init_cfg: Any = None,
    ) -> None:
        preprocessor = dict(data_preprocessor or dict(type="ffplug_stss.SupersampleDataPreprocessor"))
        super().__init__(preprocessor, init_cfg)
        self.network = MODELS.build(dict(network))
        self.losses = torch.nn.ModuleList([MODELS.build(dict(loss)) for loss in losses])
        if pretrained is not None:
            load_weights(self, pretrained)

    def checkpoint_exclude_prefixes(self) -> tuple[str, ...]:
        """What checkpoints leave out: frozen networks inside of losses."""
        return ("losses.",)

    def forward(self, inputs: Tensor, data_samples: list[SupersampleSample] | None = None, mode: str = "tensor") -> Any:
        """Run the network.

        Args:
            inputs: N×28×H×W as :data:`ffplug_stss.channels.NAMES` lists them, sides in multiples of 8.
            data_samples: of the batch, with ``gt_frame`` for ``mode="loss"``.
            mode: ``tensor`` gives N×3×2H×2W, ``predict`` the samples with ``pred_frame``, ``loss`` the loss terms.

        Raises:
            ConfigError: there is no such mode, or no loss.
            DataError: a sample of a training has no true frame.
        """
        if mode not in ("tensor", "predict", "loss"):
            raise ConfigError(f"mode={mode!r}: expected 'tensor', 'predict' or 'loss'")
        if inputs.shape[1] != CHANNELS:
            raise DataError(f"inputs {tuple(inputs.shape)}: expected {CHANNELS} channels; see ffplug_stss.channels")
        parts = unpack(inputs)
        if mode == "loss":
            return self._loss(self.network(*parts), parts.mask, data_samples)
        with fixed_weights():
            frames = self.network(*parts)
        if mode == "tensor":
            return frames
        for sample, frame, inside in zip(data_samples, frames, inputs, strict=True):
            height, width = (SCALE * side for side in sample.input_shape)
            base, hole = (enlarge(part)[0, :, :height, :width] for part in (inside[None, :3], 1 - inside[None, 15:16]))
            sample.pred_frame = frame[:, :height, :width].float()
            sample.base_frame = base
            sample.region_hole = hole[0].clamp(0, 1)
        return data_samples

    def _loss(self, frames: Tensor, mask: Tensor, samples: Sequence[SupersampleSample] | None) -> dict[str, Tensor]:
        if not len(self.losses):
            raise ConfigError("the model has no losses: give its config `losses`")
        missing = [sample.get("sample_id") for sample in samples or () if sample.get("gt_frame") is None]
        if not samples or missing:
            raise DataError(f"no true frame (gt_frame) to train on: {', '.join(map(str, missing[:4])) or 'no samples'}")
        target = torch.stack([sample.gt_frame for sample in samples])
        height, width = target.shape[2:]
        frames, mask = frames[..., :height, :width].float(), mask[..., : height // SCALE, : width // SCALE]
        terms: dict[str, Tensor] = {}
        for loss in self.losses:
            terms.update(loss(frames, target, mask))
        return terms

    def export_case(self, height: int, width: int) -> ExportCase:
        """What ``ffplug export`` writes: the four inputs of the network, and the frame.

        Raises:
            ConfigError: a side is no multiple of 8.
        """
        if height % 8 or width % 8 or min(height, width) < 8:
            raise ConfigError(
                f"STSS: input of {height}×{width} pixels: expected sides in multiples of 8; repeat the last row and "
                "column up to one, and cut the result"
            )
        draw = torch.Generator().manual_seed(0)
        packed = torch.rand(1, CHANNELS, height, width, generator=draw)
        packed[:, 15::4] = (packed[:, 15::4] > 0.2).float()
        x, feature, mask, history = unpack(packed)
        return ExportCase(
            module=_Plain(self.network),
            inputs=dict(x=x, feature=feature, mask=mask, history=history.flatten(1, 2)),
            outputs=("frame",),
            channels=described(),
            conventions=CONVENTIONS,
            multiple=8,
            resizable=True,
        )

    def example_batch(self, batch_size: int = 2) -> dict[str, Any]:
        """A small batch as a data loader would give it, always the same: 20×28 pixels with a hole."""
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator)

        inputs, samples = [], []
        for number in range(batch_size):
            values = draw(CHANNELS, 20, 28)
            values[6:9] = 2 * values[6:9] - 1
            values[15::4] = (values[15::4] > 0.2).float()
            values[15, 4:10, 6:14] = 0
            sample = SupersampleSample(metainfo=dict(sample_id=f"example/{number}", kind="EF", dataset="example"))
            sample.gt_frame = draw(3, 40, 56)
            inputs.append(values)
            samples.append(sample)
        return dict(inputs=inputs, data_samples=samples)


class _Plain(torch.nn.Module):
    """The network with its history as 12 channels: no tensor of five axes, which engines dislike."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, feature: Tensor, mask: Tensor, history: Tensor) -> Tensor:
        return self.network(x, feature, mask, history.unflatten(1, (HISTORY, history.shape[1] // HISTORY)))
