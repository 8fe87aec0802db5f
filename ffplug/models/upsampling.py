"""Upsamplers of low-resolution flow."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.models.layers import Conv2d, PointwiseConv2d
from ffplug.models.parts import Upsampler
from ffplug.ops import convex_upsample
from ffplug.registry import MODELS


@MODELS.register_module()
class ConvexUpsampler(Upsampler):
    """Learned convex upsampling by 8 (RAFT, section 3.3).

    Args:
        hidden_channels: channels of the hidden state.
        width: channels inside the mask head.
        factor: ratio of the resolutions.
        init_cfg: see MMEngine's ``BaseModule``.
    """

    def __init__(
        self, hidden_channels: int = 128, width: int = 256, factor: int = 8, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.hidden_channels = hidden_channels
        self.factor = factor
        self.mask_head = nn.Sequential(
            Conv2d(hidden_channels, width, activation="relu"),
            PointwiseConv2d(width, 9 * factor * factor),
        )

    def forward(self, hidden: Tensor, flow: Tensor) -> Tensor:
        """Hidden state N×C×h×w, low-resolution flow N×2×h×w -> flow N×2×8h×8w in pixels."""
        # The factor 0.25 balances the mask's gradients (RAFT's published code).
        return convex_upsample(flow, 0.25 * self.mask_head(hidden), self.factor)


@MODELS.register_module()
class BilinearUpsampler(Upsampler):
    """Bilinear upsampling with aligned corners, as RAFT small has it.

    Args:
        factor: ratio of the resolutions.
        init_cfg: see MMEngine's ``BaseModule``.
    """

    def __init__(self, factor: int = 8, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.factor = factor

    def forward(self, hidden: Tensor, flow: Tensor) -> Tensor:
        """Low-resolution flow N×2×h×w -> flow N×2×8h×8w in pixels; the hidden state is not read."""
        return self.factor * F.interpolate(flow, scale_factor=self.factor, mode="bilinear", align_corners=True)
