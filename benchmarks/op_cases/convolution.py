"""The dense convolutions and normalisations of RAFT's encoder and update block, and attention over all cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import BenchCase
from torch import Tensor

from ffplug.ops import attention_weights, instance_norm, winograd_conv2d


def library(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The library's convolution, in the layout that is fastest for it."""
    return F.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2))


def normalised(x: Tensor, eps: float, relu: bool) -> Tensor:
    """torch's instance norm and ReLU."""
    y = F.instance_norm(x, eps=eps)
    return F.relu(y) if relu else y


def softmax_of_product(query: Tensor, key: Tensor) -> Tensor:
    """The plain product and softmax."""
    return (query @ key.transpose(-1, -2)).softmax(dim=-1)


def last(x: Tensor) -> Tensor:
    """In channels-last memory."""
    return x.contiguous(memory_format=torch.channels_last)


def _convolution(label: str, inputs: int, outputs: int, kernel: tuple[int, int], size: tuple[int, int]) -> BenchCase:
    pixels = size[0] * size[1]
    return BenchCase(
        winograd_conv2d,
        label,
        lambda make: (
            last(make(1, inputs, *size)),
            make(outputs, inputs, *kernel, scale=(inputs * kernel[0] * kernel[1]) ** -0.5),
            make(outputs),
        ),
        bytes=4 * (pixels * (inputs + outputs) + inputs * outputs * kernel[0] * kernel[1]),
        flops=2 * pixels * inputs * outputs * kernel[0] * kernel[1],
        rival=("F.conv2d, channels last", library),
    )


def _norm(label: str, channels: int, size: tuple[int, int], backward: bool = False) -> BenchCase:
    elements = channels * size[0] * size[1]
    return BenchCase(
        instance_norm,
        label,
        lambda make: (last(make(1, channels, *size)), 1e-5, True),
        bytes=8 * elements * (2 if backward else 1),
        flops=8 * elements,
        rival=("F.instance_norm", normalised),
        backward=backward,
    )


def _attention(label: str, cells: int) -> BenchCase:
    return BenchCase(
        attention_weights,
        label,
        lambda make: (make(1, cells, 128, scale=0.1), make(1, cells, 128)),
        bytes=4 * (2 * cells * 128 + cells * cells),
        flops=2 * cells * cells * 128 + 8 * cells * cells,
        rival=("product and softmax", softmax_of_product),
    )


CASES = [
    _convolution("64 to 64, 3x3, 220x512", 64, 64, (3, 3), (220, 512)),
    _convolution("256 to 192, 3x3, 55x128", 256, 192, (3, 3), (55, 128)),
    _convolution("256 to 256, 1x5, 55x128", 256, 256, (1, 5), (55, 128)),
    _convolution("256 to 128, 5x1, 55x128", 256, 128, (5, 1), (55, 128)),
    _convolution("64 to 64, 3x3, 540x960", 64, 64, (3, 3), (540, 960)),
    _norm("64, 220x512", 64, (220, 512)),
    _norm("64, 540x960", 64, (540, 960)),
    _norm("64, 184x248 with gradient", 64, (184, 248), backward=True),
    _attention("436x1024", 55 * 128),
    _attention("128x128", 256),
]
