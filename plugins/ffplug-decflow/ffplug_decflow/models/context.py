"""DecFlow's context encoder: that of another method, fused with facial semantics."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ffplug.errors import ConfigError
from ffplug.models.layers import ConvNorm, PointwiseConv2d, init_encoder
from ffplug.models.parts import FrameEncoder
from ffplug_decflow.registry import MODELS


class FusionBlock(nn.Module):
    """Two 3×3 convolutions with batch norm and a projected shortcut; a ReLU after the first and on the sum."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(inputs, outputs, 3, 1, "batch", relu=True, bias=False),
            ConvNorm(outputs, outputs, 3, 1, "batch", bias=False),
        )
        self.shortcut = ConvNorm(inputs, outputs, 1, 1, "batch", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×h×w -> N×outputs×h×w, no value below 0."""
        return torch.relu_(self.layers(x) + self.shortcut(x))


@MODELS.register_module()
class SemanticContextEncoder(FrameEncoder):
    """Another method's context and frozen facial semantics, fused by a residual block (DecFlow, ACM MM 2024).

    The semantics are reduced to the context's channels by a 1×1 convolution, put behind the context, and the block
    brings both together to the context's channels.

    Args:
        context: config or module of the context encoder: any :class:`~ffplug.models.parts.FrameEncoder`.
        semantic: config or module of the encoder of facial semantics, on the same grid.
        freeze_fusion: leave the fusion block as it starts. The published code does so by mistake: its checkpoints hold
            a random block.
        fixed_statistics: the batch norms of the context, of the semantics and of a frozen fusion block keep their
            statistics in training. In the published code they drift.
        init_cfg: see MMEngine's ``BaseModule``.

    Raises:
        ConfigError: the two encoders' grids differ.

    Example:
        dict(
            type="ffplug_decflow.SemanticContextEncoder",
            context=dict(type="ffplug.ResidualEncoder", norm="batch", out_channels=32, widths=(8, 16, 24)),
            semantic=dict(type="ffplug_decflow.FacialSemanticEncoder", width=8, depths=(1, 1)),
        )
    """

    def __init__(
        self,
        context: dict | FrameEncoder,
        semantic: dict | FrameEncoder,
        freeze_fusion: bool = False,
        fixed_statistics: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.context, self.semantic = (
            MODELS.build(part) if isinstance(part, Mapping) else part for part in (context, semantic)
        )
        if self.context.stride != self.semantic.stride:
            raise ConfigError(
                f"SemanticContextEncoder: context.stride={self.context.stride} and semantic.stride="
                f"{self.semantic.stride} do not fit together: both must lie on one grid"
            )
        self.out_channels = channels = self.context.out_channels
        self.stride = self.context.stride
        self.size_multiple = max(self.context.size_multiple, self.semantic.size_multiple)
        self.max_size = self.context.max_size
        self.reduce = PointwiseConv2d(self.semantic.out_channels, channels)
        self.fuse = FusionBlock(2 * channels, channels)
        self.fixed_statistics = fixed_statistics
        self.freeze_fusion = freeze_fusion
        init_encoder(self.fuse)
        self.semantic.requires_grad_(False)
        self.fuse.requires_grad_(not freeze_fusion)

    def train(self, mode: bool = True) -> SemanticContextEncoder:
        """Switch to training, with the statistics fixed that are to be."""
        super().train(mode)
        if mode and self.fixed_statistics:
            for part in (self.context, self.semantic, self.fuse if self.freeze_fusion else None):
                for module in part.modules() if part is not None else ():
                    if isinstance(module, nn.BatchNorm2d):
                        module.eval()
        return self

    def forward(self, image: Tensor) -> Tensor:
        """N×3×H×W, RGB in 0..255 -> N×out_channels×h×w."""
        semantics = self.reduce(self.semantic(image))
        return self.fuse(torch.cat((self.context(image), semantics), dim=1))
