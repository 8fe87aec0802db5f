"""Forward splatting of pictures and features."""

from __future__ import annotations

import torch
from harness import BenchCase

from ffplug.ops import splat_sum
from op_cases.warping import smooth_flow


def scattered(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """The usual way: scatter_add of the image times the weight of each of four corners."""
    count, channels, height, width = image.shape
    x = torch.arange(width, device=flow.device, dtype=flow.dtype) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None] + flow[:, 1]
    total = image.new_zeros(count, channels, height * width)
    for row in (y.floor(), y.floor() + 1):
        for column in (x.floor(), x.floor() + 1):
            weight = (1 - (x - column).abs()) * (1 - (y - row).abs())
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            share = (image * (weight * inside)[:, None]).flatten(2)
            total.scatter_add_(2, place.view(count, 1, -1).expand(-1, channels, -1), share)
    return total.view(image.shape)


def _case(label: str, channels: int, height: int, width: int, last: bool = False, backward: bool = False) -> BenchCase:
    def make(maker):
        image = maker(1, channels, height, width)
        if last:
            image = image.contiguous(memory_format=torch.channels_last)
        return image, smooth_flow(maker, height, width, 6.0)

    pixels = height * width
    return BenchCase(
        op=splat_sum,
        label=f"{channels}×{label}{', channels last' if last else ''}{', with gradient' if backward else ''}",
        make=make,
        bytes=4 * pixels * (2 * channels + 2) * (2.5 if backward else 1),
        flops=pixels * (channels * 8 + 12) * (3 if backward else 1),
        rival=("scatter_add", scattered),
        backward=backward,
    )


CASES = [
    _case("256x448", 4, 256, 448),
    _case("1080p", 4, 1080, 1920),
    _case("4K", 4, 2160, 3840),
    _case("128x224", 64, 128, 224),
    _case("128x224", 64, 128, 224, last=True),
    _case("256x448", 4, 256, 448, backward=True),
    _case("128x224", 64, 128, 224, last=True, backward=True),
]
