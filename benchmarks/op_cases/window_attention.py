"""Attention to a 5×5 window, at the sizes of STSS's module (1/8 of the rendered frame) and of whole frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import BenchCase

from ffplug.ops import local_window_attention


def unfolded(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, radius: int, dilation: int, scale: float, mode: str
) -> torch.Tensor:
    """The usual way: windows of keys and values by unfold, 25 times as large."""
    count, channels, height, width = query.shape
    side = 2 * radius + 1
    keys = F.unfold(key, side, padding=radius).view(count, channels, side * side, height * width)
    values = F.unfold(value, side, padding=radius).view(count, value.shape[1], side * side, height * width)
    score = scale * (query.flatten(2)[:, :, None] * keys).sum(dim=1)
    if mode == "softmax":
        weight = score.softmax(dim=1)
    else:
        weight = score.relu()
        weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-6)
    return (weight[:, None] * values).sum(dim=2).view(value.shape)


def _case(label: str, height: int, width: int, mode: str = "relu", backward: bool = False) -> BenchCase:
    pixels = height * width
    return BenchCase(
        op=local_window_attention,
        label=label,
        make=lambda make: (
            make(1, 32, height, width, scale=0.2),
            make(1, 32, height, width, scale=0.2),
            make(1, 64, height, width),
            2,
            1,
            1.0,
            mode,
        ),
        bytes=4 * pixels * (32 + 32 + 64 + 64) * (2 if backward else 1),
        flops=2 * 25 * pixels * (32 + 64) * (3 if backward else 1),
        rival=("unfold", unfolded),
        backward=backward,
    )


CASES = [
    _case("16x16", 16, 16),
    _case("68x120 (1080p)", 68, 120),
    _case("68x120 softmax", 68, 120, "softmax"),
    _case("136x240 (4K)", 136, 240),
    _case("270x480", 270, 480),
    _case("68x120 with gradient", 68, 120, backward=True),
]
