"""Compositing of a cloud of Gaussians, each a few pixels wide."""

from __future__ import annotations

from typing import Any

import torch
from harness import BenchCase

from ffplug.ops import gaussian_composite

CHANNELS = 7  # colour, two of flow, two depths
COVER = 12.0  # Gaussians over a pixel, about


def cloud(make: Any, number: int, height: int, width: int) -> tuple:
    """Random Gaussians, of deviations around the size at which each pixel is under a dozen of them."""
    size = (COVER * height * width / number / 20) ** 0.5
    means = make.uniform(number, 2) * make.tensor([width, height])
    angle, ratio = make.uniform(number, high=3.14), make.uniform(number, low=0.5, high=1.5)
    turn = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), -1).view(-1, 2, 2)
    half = turn * torch.stack((size * ratio, size / ratio), -1)[:, None]
    covariances = half @ half.transpose(1, 2)
    xx, xy, yy = covariances[:, 0, 0] + 0.3, covariances[:, 0, 1], covariances[:, 1, 1] + 0.3
    conics = torch.stack((yy, -xy, xx), 1) / (xx * yy - xy * xy)[:, None]
    depths = make.uniform(number, low=1, high=2)
    return means, conics, make.uniform(number, low=0.2, high=0.9), make(number, CHANNELS), depths, None, height, width


def _case(label: str, number: int, height: int, width: int, **options: Any) -> BenchCase:
    pixels, factor = height * width, 3 if options.get("backward") else 1
    return BenchCase(
        op=gaussian_composite,
        label=f"{label}, {number} Gaussians",
        make=lambda make: cloud(make, number, height, width),
        bytes=factor * 4 * (pixels * (CHANNELS + 4) + number * (CHANNELS + 7)),
        flops=factor * pixels * COVER * (30 + 2 * CHANNELS),
        **options,
    )


CASES = [
    _case("128x128", 500, 128, 128),
    _case("128x128 with gradient", 500, 128, 128, backward=True),
    _case("512x512", 4000, 512, 512),
    _case("512x512 with gradient", 4000, 512, 512, backward=True, reference=False),
    _case("802x550", 20000, 802, 550, reference=False),
    _case("1080p", 100000, 1080, 1920, reference=False),
    _case("4K", 400000, 2160, 3840, reference=False),
]
