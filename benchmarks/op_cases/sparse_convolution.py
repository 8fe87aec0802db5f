"""3×3 convolution with PReLU at the pixels of smooth masks, at the sizes of a frame interpolator's three levels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from harness import BenchCase

from ffplug.ops import active_pixels, pack_sparse_convolution, sparse_conv2d


def smooth_mask(make: Any, height: int, width: int, active: float) -> torch.Tensor:
    """The upper quantile of a Gaussian field of deviation W/37: blobs, as of moving objects."""
    if active >= 1:
        return torch.ones(1, 1, height, width, dtype=torch.bool, device=make.device)
    deviation = width / 37
    reach = round(3 * deviation)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * deviation**2))
    field = torch.randn(1, 1, height + 2 * reach, width + 2 * reach, generator=make.generator, dtype=torch.float64)
    field = F.conv2d(F.conv2d(field, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return (field > torch.quantile(field, 1 - active)).to(make.device)


def dense(x: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor, bias: None, slope: torch.Tensor, *rest: object):
    """The dense layer, channels last, the PReLU without the mask."""
    weight = weight.contiguous(memory_format=torch.channels_last)
    return F.prelu(F.conv2d(x, weight, bias, padding=1), slope)


def _case(label: str, channels: int, height: int, width: int, active: float) -> BenchCase:
    def make(make: Any) -> tuple:
        x = make(1, channels, height, width).contiguous(memory_format=torch.channels_last)
        weight = make(channels, channels, 3, 3, scale=1 / (3 * channels**0.5))
        mask, slope = smooth_mask(make, height, width, active), make.uniform(channels)
        # A network prepares the weights once and the list once for all layers of a level.
        prepared = (active_pixels(mask), pack_sparse_convolution(weight)) if make.device == "cpu" else (None, None)
        return x, weight, mask, None, slope, "zero", [], *prepared

    pixels = height * width
    return BenchCase(
        op=sparse_conv2d,
        label=f"{label}, {active:.0%} active",
        make=make,
        bytes=4 * pixels * channels * (1 + active) + 4 * 9 * channels**2,
        flops=2 * 9 * channels**2 * pixels * active,
        rival=("conv2d", dense),
    )


def concatenated(x: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor, bias: None, slope: torch.Tensor, *rest):
    """The dense 1×1 layer over the concatenation of all layers' outputs."""
    return F.prelu(F.conv2d(torch.cat((x, *rest[1]), dim=1), weight, bias), slope)


def _fusion(label: str, channels: int, layers: int, outputs: int, height: int, width: int) -> BenchCase:
    def make(make: Any) -> tuple:
        maps = [make(1, height, width, channels).permute(0, 3, 1, 2) for _ in range(layers)]
        weight, slope = make(outputs, layers * channels, 1, 1, scale=0.05), make.uniform(outputs)
        mask = smooth_mask(make, height, width, 0.5)
        prepared = (active_pixels(mask), pack_sparse_convolution(weight)) if make.device == "cpu" else (None, None)
        return maps[0], weight, mask, make(outputs), slope, "bias", maps[1:], *prepared

    pixels = height * width
    return BenchCase(
        op=sparse_conv2d,
        label=label,
        make=make,
        bytes=4 * pixels * (channels * layers / 2 + outputs),
        flops=2 * channels * layers * outputs * pixels / 2,
        rival=("cat, conv2d", concatenated),
    )


CASES = [
    _case(f"{channels} ch {height}x{width}", channels, height, width, active)
    for channels, height, width in ((64, 256, 448), (100, 128, 224), (148, 64, 112), (220, 32, 56), (100, 360, 640))
    for active in (0.3, 0.5, 1.0)
]
CASES += [
    _fusion("1x1 over 5 x 100 ch 128x224, 50% active", 100, 5, 100, 128, 224),
    _fusion("1x1 over 6 x 220 ch 32x56, 50% active", 220, 6, 52, 32, 56),
]
