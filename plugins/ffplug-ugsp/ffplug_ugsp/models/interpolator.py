"""Frame interpolation as a model of MMEngine: training losses, predictions, and what a person calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor, nn

from ffplug.apis.models import load_weights
from ffplug.errors import ConfigError, DataError
from ffplug.models.layers import fixed_weights
from ffplug.models.padding import pad
from ffplug_ugsp.registry import MODELS
from ffplug_ugsp.structures import InterpolationSample


class InterpolationNetwork(nn.Module):
    """Base of the networks: what :class:`FrameInterpolator` asks of one.

    Attributes:
        multiple: what the sides of the frames must be multiples of.
        any_timestep: whether it can produce frames at other times than the middle.
    """

    multiple = 16
    any_timestep = False

    def forward(self, frame0: Tensor, frame1: Tensor, timestep: Tensor, valid: tuple[int, int] | None = None) -> Tensor:
        """Produce a frame, in the fastest way.

        Args:
            frame0: N×3×H×W RGB in 0..1, sides in multiples of ``multiple``.
            frame1: the second, likewise.
            timestep: N, in 0..1.
            valid: rows and columns, from the top left, that are no padding; None: all.

        Returns:
            N×3×H×W in 0..1.
        """
        return self.outputs(frame0, frame1, timestep)["frame"]

    def outputs(self, frame0: Tensor, frame1: Tensor, timestep: Tensor, target: Tensor | None = None) -> dict[str, Any]:
        """Everything that losses look at, by name; ``frame`` is the frame.

        Args:
            frame0: as in :meth:`forward`.
            frame1: as in :meth:`forward`.
            timestep: as in :meth:`forward`.
            target: the true frame, for networks that learn from one that sees it.
        """
        raise NotImplementedError

    def find_flow_at(self, scale: float) -> None:
        """Find the flow in frames resized by ``scale`` from now on, and bring it back to the frames' own size.

        Raises:
            ConfigError: this network cannot, or not at this scale.
        """
        raise ConfigError(f"{type(self).__name__} finds flow at the frames' own size only, not at {scale} of it")

    def _multiple_at(self, scale: float, base: int) -> int:
        """What sides must be multiples of so that resized ones are of ``base``."""
        multiple = round(base / scale) if scale > 0 else 0
        if not 0 < scale <= 1 or abs(multiple * scale - base) > 1e-6:
            raise ConfigError(f"flow at {scale} of the size: expected 1, or less such as 0.5 or 0.25 for large frames")
        return multiple


@MODELS.register_module()
class FramePairPreprocessor(BaseDataPreprocessor):
    """Stack the frame pairs of a batch and move them to the device.

    Args:
        non_blocking: copy to the device asynchronously.

    Example:
        dict(type="ffplug_ugsp.FramePairPreprocessor")
    """

    def __init__(self, non_blocking: bool = False) -> None:
        super().__init__(non_blocking)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Turn a collated batch into model inputs.

        Args:
            data: ``inputs``, float tensors 2×3×H×W in 0..1, and ``data_samples``.
            training: makes no difference.

        Returns:
            ``inputs`` N×2×3×H×W and ``data_samples``.

        Raises:
            DataError: the frames of the batch differ in size.
        """
        data = self.cast_data(data)
        inputs = data["inputs"]
        sizes = {tuple(item.shape) for item in inputs}
        if len(sizes) > 1:
            raise DataError(f"frames of different sizes in one batch: {sorted(sizes)}; crop them alike")
        inputs = (inputs if isinstance(inputs, Tensor) else torch.stack(tuple(inputs))).float()
        return {**data, "inputs": inputs, "data_samples": data.get("data_samples")}


@MODELS.register_module()
class FrameInterpolator(BaseModel):
    """A model that produces the frame between two others.

    Args:
        network: config of the network, see :class:`InterpolationNetwork`.
        losses: configs of the terms of the training loss, called with the network's outputs, the true frame and the
            samples.
        data_preprocessor: config of what batches the samples.
        pretrained: weights to start from: a name of released ones or a path; None draws them.
        init_cfg: see MMEngine.

    Raises:
        CheckpointError: the weights to start from are not on this machine, or another network's.

    Example:
        dict(type="ffplug_ugsp.FrameInterpolator", network=dict(type="ffplug_ugsp.IFRNet"))
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        losses: Sequence[Mapping[str, Any]] = (),
        data_preprocessor: Mapping[str, Any] | None = None,
        pretrained: str | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(dict(data_preprocessor or dict(type="ffplug_ugsp.FramePairPreprocessor")), init_cfg)
        self.network: InterpolationNetwork = MODELS.build(dict(network))
        self.losses = nn.ModuleList([MODELS.build(dict(loss)) for loss in losses])
        if pretrained is not None:
            load_weights(self, pretrained)

    @property
    def any_timestep(self) -> bool:
        """Whether it produces frames at any time between the two; else only the middle one, and others by recursion."""
        return self.network.any_timestep

    def checkpoint_exclude_prefixes(self) -> tuple[str, ...]:
        """What checkpoints leave out: frozen networks inside of losses."""
        return ("losses.",)

    def find_flow_at(self, scale: float) -> None:
        """See :meth:`InterpolationNetwork.find_flow_at`."""
        self.network.find_flow_at(scale)

    @torch.no_grad()
    def interpolate(self, frame0: Tensor, frame1: Tensor, timestep: Tensor | float = 0.5) -> Tensor:
        """Produce the frame between two others.

        Args:
            frame0: N×3×H×W RGB in 0..1, of any size.
            frame1: the second, likewise.
            timestep: where between them, in 0..1: a number, or N of them.

        Returns:
            N×3×H×W in 0..1.

        Raises:
            ConfigError: another time than 0.5, of a network that knows only the middle.
            DataError: the frames differ in shape or are no RGB.
        """
        if frame0.ndim != 4 or frame0.shape[1] != 3 or frame0.shape != frame1.shape:
            raise DataError(f"frames {tuple(frame0.shape)} and {tuple(frame1.shape)}: expected N×3×H×W of one shape")
        count, _, height, width = frame0.shape
        timestep = torch.as_tensor(timestep, dtype=frame0.dtype, device=frame0.device).expand(count)
        if not self.any_timestep and not bool((timestep == 0.5).all()):
            raise ConfigError(
                f"timestep={timestep.tolist()}: {type(self.network).__name__} produces the middle frame (0.5) only; "
                "produce it first, and go on between it and its neighbours"
            )
        bottom, right = (-side % self.network.multiple for side in (height, width))
        padding = (0, right, 0, bottom)
        valid = (height, width) if bottom or right else None
        with fixed_weights():
            frame = self.network(pad(frame0, padding), pad(frame1, padding), timestep, valid)
        return frame[..., :height, :width]

    def forward(
        self, inputs: Tensor, data_samples: list[InterpolationSample] | None = None, mode: str = "tensor"
    ) -> Any:
        """Run the network.

        Args:
            inputs: N×2×3×H×W in 0..1: the frames before and after.
            data_samples: of the batch, with ``gt_frame`` for ``mode="loss"``; ``timestep`` is taken from them.
            mode: ``tensor`` gives N×3×H×W, ``predict`` the samples with ``pred_frame`` and ``base_frame`` (the mean of
                the two frames), ``loss`` the loss terms.

        Raises:
            ConfigError: there is no such mode, or no loss.
            DataError: a sample of a training has no true frame.
        """
        if mode not in ("tensor", "predict", "loss"):
            raise ConfigError(f"mode={mode!r}: expected 'tensor', 'predict' or 'loss'")
        frame0, frame1 = inputs.unbind(dim=1)
        timestep = [float(sample.get("timestep", 0.5)) for sample in data_samples or [{}] * len(inputs)]
        timestep = inputs.new_tensor(timestep)
        if mode == "loss":
            return self._loss(frame0, frame1, timestep, data_samples)
        frames = self.interpolate(frame0, frame1, timestep)
        if mode == "tensor":
            return frames
        for sample, frame, pair in zip(data_samples, frames, inputs, strict=True):
            sample.pred_frame = frame.float()
            sample.base_frame = pair.mean(dim=0)
        return data_samples

    def _loss(
        self, frame0: Tensor, frame1: Tensor, timestep: Tensor, samples: Sequence[InterpolationSample] | None
    ) -> dict[str, Tensor]:
        if not len(self.losses):
            raise ConfigError("the model has no losses: give its config `losses`")
        missing = [sample.get("sample_id") for sample in samples or () if sample.get("gt_frame") is None]
        if not samples or missing:
            raise DataError(f"no true frame (gt_frame) to train on: {', '.join(map(str, missing[:4])) or 'no samples'}")
        multiple, (height, width) = self.network.multiple, frame0.shape[2:]
        if height % multiple or width % multiple:
            raise DataError(f"frames of {height}×{width} to train on: crop them to multiples of {multiple}")
        target = torch.stack([sample.gt_frame for sample in samples])
        outputs = self.network.outputs(frame0, frame1, timestep, target)
        terms: dict[str, Tensor] = {}
        for loss in self.losses:
            terms.update(loss(outputs, target, samples))
        return terms

    def example_batch(self, batch_size: int = 2) -> dict[str, Any]:
        """A small batch as a data loader would give it, always the same: pairs of 64×64 pixels."""
        draw = torch.Generator().manual_seed(0)
        inputs, samples = [], []
        for number in range(batch_size):
            frames = torch.rand(3, 3, 64, 64, generator=draw)
            sample = InterpolationSample(metainfo=dict(sample_id=f"example/{number}", dataset="example", timestep=0.5))
            sample.gt_frame = frames[1]
            sample.gt_labels = (torch.rand(3, 64, 64, generator=draw) > 0.5).float()
            sample.gt_flow = 4 * torch.rand(4, 64, 64, generator=draw) - 2
            inputs.append(frames[::2].clone())
            samples.append(sample)
        return dict(inputs=inputs, data_samples=samples)
