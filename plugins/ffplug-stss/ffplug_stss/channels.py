"""What the network takes, as one tensor: the order of its channels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CHANNELS = 28
"""Channels of the packed input."""

HISTORY = 3
"""Earlier frames that are warped to the frame to produce."""

SCALE = 2
"""Pixels of the result to one of the input, each way."""

NAMES = (
    *(f"color.{c}" for c in "rgb"),
    *(f"plain.{c}" for c in "rgb"),
    *(f"normal.{c}" for c in "xyz"),
    "depth",
    "roughness",
    "metallic",
    *(f"base_color.{c}" for c in "rgb"),
    "mask",
    *(f"history.{age}.{c}" for age in ("oldest", "middle", "newest") for c in ("r", "g", "b", "mask")),
)
"""The packed input's channels by name."""


class Inputs(NamedTuple):
    """The four inputs of the network, at the low resolution; sides are multiples of 8.

    Attributes:
        x: N×6×H×W, RGB in 0..1: the newest shaded frame warped to the frame to produce with its holes filled, and the
            same warp as it is. For a shaded frame both are that frame.
        feature: N×9×H×W, buffers of the frame to produce: world normal (-1..1), depth (0..1), roughness, metallic,
            base colour (0..1).
        mask: N×1×H×W, 1 = valid, 0 = hole.
        history: N×3×4×H×W, earlier shaded frames warped to the frame to produce, oldest first: RGB and mask.
    """

    x: Tensor
    feature: Tensor
    mask: Tensor
    history: Tensor

    def pack(self) -> Tensor:
        """All channels in one tensor, N×28×H×W."""
        return torch.cat([self.x, self.feature, self.mask, self.history.flatten(1, 2)], dim=1)


def unpack(packed: Tensor) -> Inputs:
    """The four inputs of a packed tensor N×28×H×W; no data is copied."""
    x, feature, mask, history = packed.split((6, 9, 1, 4 * HISTORY), dim=1)
    return Inputs(x, feature, mask, history.unflatten(1, (HISTORY, 4)))
