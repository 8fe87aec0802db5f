"""Layers that the networks share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.models.layers import convolve
from ffplug.ops import backward_warp


class ConvPReLU(nn.Conv2d):
    """A convolution with a PReLU of one slope per channel.

    Args:
        inputs: channels of the input.
        outputs: channels of the result.
        stride: 1 keeps the size, 2 halves it.
        kernel: side of the kernel, odd.
        bias: add a learned bias.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, kernel: int = 3, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
        self.slope = nn.Parameter(torch.full((outputs,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H/stride×W/stride."""
        if self.stride == (1, 1):
            return F.prelu(convolve(x, self.weight, self.bias, owner=self), self.slope)
        return F.prelu(super().forward(x), self.slope)


class UpPReLU(nn.ConvTranspose2d):
    """A transposed convolution that doubles the size, with a PReLU of one slope per channel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, 2, 1)
        self.slope = nn.Parameter(torch.full((outputs,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×2H×2W."""
        return F.prelu(super().forward(x), self.slope)


class ContextPyramid(nn.Module):
    """Features of a frame at 1/2, 1/4, 1/8 and 1/16 of its size.

    Args:
        widths: channels of the four stages.
        kernel: side of the first convolution's kernel.
        inputs: channels of the frame.
    """

    def __init__(self, widths: tuple[int, ...], kernel: int = 3, inputs: int = 3) -> None:
        super().__init__()
        widths = (inputs, *widths)
        self.stages = nn.ModuleList(
            nn.Sequential(
                ConvPReLU(widths[i], widths[i + 1], 2, kernel if i == 0 else 3), ConvPReLU(widths[i + 1], widths[i + 1])
            )
            for i in range(4)
        )

    def forward(self, frame: Tensor) -> list[Tensor]:
        """N×3×H×W -> features, finest first."""
        features = []
        for stage in self.stages:
            frame = stage(frame)
            features.append(frame)
        return features


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """The image N×C×H×W sampled where the flow N×2×H×W points, its border repeated outside."""
    return backward_warp(image, flow, "border")


def resize(x: Tensor, factor: float) -> Tensor:
    """N×C×H×W enlarged or shrunk bilinearly."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def centre(frame0: Tensor, frame1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both frames N×3×H×W less their common mean, and this mean N×1×1×1."""
    mean = (frame0.mean(dim=(1, 2, 3), keepdim=True) + frame1.mean(dim=(1, 2, 3), keepdim=True)) / 2
    return frame0 - mean, frame1 - mean, mean
