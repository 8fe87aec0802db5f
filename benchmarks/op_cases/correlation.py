"""Look-ups of a 9×9 window in a correlation pyramid of four levels, 256 channels: RAFT's."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from harness import BenchCase
from torch import Tensor

from ffplug.ops import corr_lookup, corr_lookup_on_demand

LEVELS, RADIUS, CHANNELS = 4, 4, 256


def sizes_of(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Sizes of the levels."""
    return tuple((height >> level, width >> level) for level in range(LEVELS))


def smooth_flow(make, height: int, width: int) -> Tensor:
    """Flow of a few cells that varies slowly, as real flow does."""
    coarse = make(1, 2, max(height // 8, 1), max(width // 8, 1), scale=3.0)
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)


def sampled(volume: Tensor, sizes, flow: Tensor, radius: int) -> Tensor:
    """RAFT's published way: grid_sample on every level's maps."""
    _, _, height, width = flow.shape
    x = flow[:, 0] + torch.arange(width, device=flow.device)
    y = flow[:, 1] + torch.arange(height, device=flow.device)[:, None]
    centre = torch.stack((x, y), dim=-1).reshape(-1, 1, 1, 2)
    steps = torch.linspace(-radius, radius, 2 * radius + 1, device=flow.device)
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
    result, start = [], 0
    for level, (h, w) in enumerate(sizes):
        maps = volume[0, :, start : start + h * w].reshape(-1, 1, h, w)
        start += h * w
        target = centre / 2**level + offsets
        grid = torch.stack((2 * target[..., 0] / (w - 1) - 1, 2 * target[..., 1] / (h - 1) - 1), dim=-1)
        result.append(F.grid_sample(maps, grid, align_corners=True).view(1, height, width, -1))
    return torch.cat(result, dim=-1).permute(0, 3, 1, 2).contiguous()


def stored(make, height: int, width: int):
    """Arguments of the stored form."""
    cells = sum(h * w for h, w in sizes_of(height, width))
    return make(1, height * width, cells), sizes_of(height, width), smooth_flow(make, height, width), RADIUS


def on_demand(make, height: int, width: int):
    """Arguments of the form on demand."""
    cells = sum(h * w for h, w in sizes_of(height, width))
    query, table = make(1, height * width, CHANNELS), make(1, cells, CHANNELS)
    return query, table, sizes_of(height, width), smooth_flow(make, height, width), RADIUS


def _cases(label: str, height: int, width: int, backward: bool = False, large: bool = False) -> list[BenchCase]:
    cells = height * width
    table = sum(h * w for h, w in sizes_of(height, width))
    outputs = LEVELS * (2 * RADIUS + 1) ** 2
    near = LEVELS * (2 * RADIUS + 2) ** 2
    flops = cells * outputs * 8
    found = [
        BenchCase(
            corr_lookup_on_demand,
            label,
            partial(on_demand, height=height, width=width),
            bytes=4 * (CHANNELS * (cells + table) + cells * (outputs + 2)) * (2 if backward else 1),
            flops=(flops + cells * near * 2 * CHANNELS) * (3 if backward else 1),
            backward=backward,
            reference=not large,
        )
    ]
    if not large:
        found.append(
            BenchCase(
                corr_lookup,
                label,
                partial(stored, height=height, width=width),
                bytes=4 * cells * (near + outputs + 2) + (8 * cells * table if backward else 0),
                flops=flops,
                rival=("grid_sample", sampled),
                backward=backward,
            )
        )
    return found


CASES = [
    *_cases("128x128", 16, 16),
    *_cases("436x1024", 55, 128),
    *_cases("1080p", 135, 240, large=True),
    *_cases("4K", 270, 480, large=True),
    *_cases("368x496 with gradient", 46, 62, backward=True),
]
