"""Residual encoders of RAFT (section 3.1 and appendix): frames to features at 1/8 of the resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ffplug.models.layers import ConvNorm, PointwiseConv2d, init_encoder, scale_image
from ffplug.models.parts import FrameEncoder
from ffplug.registry import MODELS


def _shortcut(inputs: int, outputs: int, norm: str, stride: int) -> nn.Module:
    same = stride == 1 and inputs == outputs
    return nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride, norm)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, with a ReLU on the branch before the sum and on the sum."""

    def __init__(self, inputs: int, outputs: int, norm: str, stride: int = 1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [ConvNorm(inputs, outputs, 3, stride, norm, relu=True), ConvNorm(outputs, outputs, 3, norm=norm, relu=True)]
        )
        self.shortcut = _shortcut(inputs, outputs, norm, stride)

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H/stride×W/stride."""
        y = x
        for layer in self.layers:
            y = layer(y)
        return torch.relu_(y + self.shortcut(x))


class BottleneckBlock(ResidualBlock):
    """1×1, 3×3 and 1×1 convolutions with a quarter of the channels in between, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, norm: str, stride: int = 1) -> None:
        nn.Module.__init__(self)
        inner = outputs // 4
        self.layers = nn.ModuleList(
            [
                ConvNorm(inputs, inner, 1, norm=norm, relu=True),
                ConvNorm(inner, inner, 3, stride, norm, relu=True),
                ConvNorm(inner, outputs, 1, norm=norm, relu=True),
            ]
        )
        self.shortcut = _shortcut(inputs, outputs, norm, stride)


@MODELS.register_module()
class ResidualEncoder(FrameEncoder):
    """RAFT's encoder: a 7×7 convolution of stride 2, three stages of two blocks, a 1×1 convolution.

    The stem and every stage but the first halve the resolution: three stages give an eighth, two a quarter.

    Args:
        out_channels: C of the output.
        norm: ``instance``, ``batch`` or ``none``.
        widths: channels of the stages; the stem has those of the first.
        bottleneck: bottleneck blocks (RAFT small) in place of residual ones.
        dropout: probability of dropping an output channel in training.
        init_cfg: see MMEngine's ``BaseModule``.
    """

    def __init__(
        self,
        out_channels: int = 256,
        norm: str = "instance",
        widths: Sequence[int] = (64, 96, 128),
        bottleneck: bool = False,
        dropout: float = 0.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.out_channels = out_channels
        self.stride = self.size_multiple = 2 ** len(widths)
        block = BottleneckBlock if bottleneck else ResidualBlock
        self.stem = ConvNorm(3, widths[0], 7, 2, norm, relu=True)
        stages, inputs = [], widths[0]
        for index, width in enumerate(widths):
            stages.append(nn.Sequential(block(inputs, width, norm, 2 if index else 1), block(width, width, norm)))
            inputs = width
        self.stages = nn.Sequential(*stages)
        self.head = PointwiseConv2d(inputs, out_channels)
        self.dropout = nn.Dropout2d(dropout)
        init_encoder(self)

    def forward(self, image: Tensor) -> Tensor:
        """N×3×H×W, RGB in 0..255 -> N×out_channels×h×w, h = H / ``stride``."""
        return self.dropout(self.head(self.stages(self.stem(scale_image(image)))))
