"""From a batch of samples to what a flow network takes."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from ffplug.datasets.seeding import derive_seed
from ffplug.errors import DataError
from ffplug.models.padding import pad, padding_for
from ffplug.registry import MODELS


@MODELS.register_module()
class FlowDataPreprocessor(BaseDataPreprocessor):
    """Stack frame pairs, move them to the device, add noise in training, pad to the network's size.

    Networks normalise for themselves, so the result is RGB in 0..255.

    Args:
        pad_mode: ``sintel`` or ``kitti``, see :func:`ffplug.models.padding.padding_for`.
        multiple: what the sides must be multiples of.
        minimum: smallest side that the network takes.
        noise: range of the standard deviation of the Gaussian noise that training adds to both frames, or None. It is
            drawn for every sample from its own seed, so a resumed run repeats it exactly. (FlowFormer draws one
            deviation per step, which is the same at its batch of one pair per device.)
        non_blocking: copy to the device asynchronously.
    """

    def __init__(
        self,
        pad_mode: str = "sintel",
        multiple: int = 8,
        minimum: int = 64,
        noise: tuple[float, float] | None = None,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        self.pad_mode = pad_mode
        self.multiple = multiple
        self.minimum = minimum
        self.noise = noise
        padding_for(1, 1, multiple, pad_mode)  # an unknown mode should fail here, not at the first batch

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Turn a collated batch into model inputs.

        Args:
            data: ``inputs``, a list of uint8 tensors 2×3×H×W (or one N×2×3×H×W), and ``data_samples``.
            training: whether noise is added.

        Returns:
            ``inputs`` float32 N×2×3×H'×W' in 0..255, and ``data_samples``, whose metainfo gets ``padding``.

        Raises:
            DataError: the pairs of the batch differ in size.
        """
        data = self.cast_data(data)
        inputs, samples = data["inputs"], data.get("data_samples")
        sizes = {tuple(pair.shape[-2:]) for pair in inputs}
        if len(sizes) > 1:
            names = [getattr(sample, "sample_id", "?") for sample in samples or []]
            raise DataError(
                f"frame pairs of different sizes in one batch: {sorted(sizes)} ({', '.join(names)}); "
                "crop them alike, or use batch_size=1"
            )
        frames = (inputs if isinstance(inputs, Tensor) else torch.stack(tuple(inputs))).float()
        if training and self.noise is not None:
            frames = torch.stack([self._add_noise(pair, index, samples) for index, pair in enumerate(frames)])
        height, width = frames.shape[-2:]
        padding = padding_for(height, width, self.multiple, self.pad_mode, self.minimum)
        frames = pad(frames.flatten(0, 1), padding).unflatten(0, frames.shape[:2])
        for sample in samples or []:
            sample.set_metainfo({"padding": padding})
        return {**data, "inputs": frames, "data_samples": samples}

    def _add_noise(self, pair: Tensor, index: int, samples: list | None) -> Tensor:
        draw = getattr(samples[index], "draw", None) if samples else None
        generator = torch.Generator(pair.device)
        if draw is None:
            generator.seed()
        else:
            generator.manual_seed(derive_seed("noise", int(draw)))
        low, high = self.noise
        deviation = low + (high - low) * torch.rand((), generator=generator, device=pair.device)
        noise = torch.randn(pair.shape, generator=generator, device=pair.device)
        return (pair + deviation * noise).clamp_(0, 255)
