"""Warping of pictures and features, and the warm start's forward warp of a flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import BenchCase

from ffplug.ops import backward_warp, forward_warp_flow


def smooth_flow(make, height: int, width: int, scale: float) -> torch.Tensor:
    """A flow that varies over some 32 pixels, as flows do; 1×2×H×W."""
    coarse = make(1, 2, max(2, height // 32), max(2, width // 32), scale=scale)
    return F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)


def sampled(image: torch.Tensor, flow: torch.Tensor, padding: str = "zeros") -> torch.Tensor:
    """The usual way: a grid of pixels plus flow, normalised, and grid_sample."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=flow.device, dtype=flow.dtype),
        torch.arange(width, device=flow.device, dtype=flow.dtype),
        indexing="ij",
    )
    target = torch.stack((x, y)) + flow
    grid = torch.stack((2 * target[:, 0] / (width - 1) - 1, 2 * target[:, 1] / (height - 1) - 1), dim=-1)
    return F.grid_sample(image, grid, padding_mode=padding, align_corners=True)


def nearest_by_distances(flow: torch.Tensor) -> torch.Tensor:
    """The warm start by the distances of all pairs of cells."""
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack((x, y), dim=-1).view(-1, 2).to(flow)
    values = flow[0].flatten(1).T
    moved = grid + values
    kept = ((moved > 0) & (moved < grid.new_tensor((width, height)))).all(dim=1)
    moved, values = moved[kept], values[kept]
    nearest = torch.cat([torch.cdist(part, moved).argmin(dim=1) for part in grid.split(2048)])
    return values[nearest].T.reshape(1, 2, height, width)


def _warp(label: str, channels: int, height: int, width: int, last: bool = False, backward: bool = False) -> BenchCase:
    def make(maker):
        image = maker(1, channels, height, width)
        if last:
            image = image.contiguous(memory_format=torch.channels_last)
        return image, smooth_flow(maker, height, width, 6.0), "zeros"

    pixels = height * width
    return BenchCase(
        op=backward_warp,
        label=f"{channels}×{label}{', channels last' if last else ''}{', with gradient' if backward else ''}",
        make=make,
        bytes=4 * pixels * (2 * channels + 2) * (2.5 if backward else 1),
        flops=pixels * (channels * 7 + 12) * (3 if backward else 1),
        rival=("grid_sample", sampled),
        backward=backward,
    )


def _forward(label: str, height: int, width: int) -> BenchCase:
    return BenchCase(
        op=forward_warp_flow,
        label=label,
        make=lambda maker: (smooth_flow(maker, height, width, 1.5),),
        bytes=4 * height * width * 4,
        flops=height * width * 30,
        rival=("cdist", nearest_by_distances) if height < 200 else None,
        reference=height < 200,
    )


CASES = [
    _warp("256x448", 3, 256, 448),
    _warp("436x1024", 3, 436, 1024),
    _warp("1080p", 3, 1080, 1920),
    _warp("4K", 3, 2160, 3840),
    _warp("128x224", 64, 128, 224),
    _warp("128x224", 64, 128, 224, last=True),
    _warp("55x128", 256, 55, 128),
    _warp("55x128", 256, 55, 128, last=True),
    _warp("256x448", 3, 256, 448, backward=True),
    _warp("128x224", 64, 128, 224, backward=True),
    _warp("128x224", 64, 128, 224, last=True, backward=True),
    _forward("436x1024", 55, 128),
    _forward("1080p", 135, 240),
    _forward("4K", 270, 480),
]
