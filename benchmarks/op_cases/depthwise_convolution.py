"""Depth-wise convolutions of SKFlow at 1/8 of 436×1024."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import BenchCase
from torch import Tensor

from ffplug.ops import add_gelu, depthwise_conv2d


def library(x: Tensor, weight: Tensor, bias: Tensor, residual: bool, activation: str) -> Tensor:
    """The library's grouped convolution, sum and GELU, in contiguous memory as SKFlow's published code has them."""
    x = x.contiguous()
    return F.gelu(x + F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=x.shape[1]))


def library_sum(a: Tensor, b: Tensor) -> Tensor:
    """Sum and GELU."""
    return F.gelu(a + b)


def _case(channels: int, size: int, height: int = 55, width: int = 128) -> BenchCase:
    elements = channels * height * width
    return BenchCase(
        depthwise_conv2d,
        f"{channels}x{height}x{width}, {size}x{size}",
        lambda make: (
            make(1, channels, height, width).contiguous(memory_format=torch.channels_last),
            make(channels, 1, size, size, scale=1 / size),
            make(channels),
            True,
            "gelu",
        ),
        bytes=8 * elements,
        flops=elements * (2 * size * size + 30),
        rival=("F.conv2d, sum, GELU", library),
    )


CASES = [
    _case(324, 15),
    _case(128, 15),
    _case(512, 7),
    _case(324, 1),
    _case(128, 15, 135, 240),
    BenchCase(
        add_gelu,
        "512x55x128",
        lambda make: (make(55 * 128, 512), make(55 * 128, 512)),
        bytes=12 * 512 * 55 * 128,
        flops=30 * 512 * 55 * 128,
        rival=("sum, GELU", library_sum),
    ),
]
