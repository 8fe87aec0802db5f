"""The loss of MVFlow's prior."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.models.padding import unpad
from ffplug.models.parts import FlowLoss
from ffplug_mvflow.registry import MODELS

_DECAY = 2.0
"""Error in pixels at which a vector's credibility should be 1/e."""


@MODELS.register_module()
class MotionVectorLoss(FlowLoss):
    """L1 error of the prior's first flow, and cross-entropy of its credibility; beside :class:`ffplug.SequenceLoss`.

    The first flow counts as iteration 0 of the sequence: ``gamma^N · mean(valid · |f_0 - gt|)``, bilinearly upsampled.
    A vector with an error of e pixels against the mean true flow in its cell should have the credibility
    ``exp(-e / 2 px)``; that term counts over cells with a vector and true flow.

    Args:
        gamma: decay of the weight from the last iteration back, as of the sequence loss.
        weight: of the credibility's term.
        max_flow: ground truth of this length (pixels) or more is left out.

    Example:
        dict(type="ffplug_mvflow.MotionVectorLoss")
    """

    def __init__(self, gamma: float = 0.8, weight: float = 0.1, max_flow: float = 400.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.weight = weight
        self.max_flow = max_flow

    def forward(self, outputs: dict[str, Any], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """``first_loss`` and ``credibility_loss``; and for the log ``first_epe``, the first flow's end-point error."""
        memory = outputs["states"][0].memory
        truth, padding = targets["flow"], outputs["padding"]
        valid = ((targets["valid"] >= 0.5) & (truth.norm(dim=1) < self.max_flow))[:, None].float()
        truth = torch.where(valid > 0, truth, 0)
        first: Tensor = memory["first_flow"]
        stride = (truth.shape[-1] + padding[0] + padding[1]) // first.shape[-1]
        fine = stride * F.interpolate(first, scale_factor=stride, mode="bilinear", align_corners=False)
        error = (unpad(fine, padding) - truth) * valid
        share = F.avg_pool2d(F.pad(valid, padding), stride)
        mean = F.avg_pool2d(F.pad(truth, padding), stride) / torch.where(share > 0, share, 1)
        known = memory["motion_valid"] * (share > 0)
        away = (stride * memory["motion_flow"] - mean).norm(dim=1, keepdim=True)
        wanted = torch.exp(-away / _DECAY)
        credibility = memory["credibility"].clamp(1e-6, 1 - 1e-6)
        entropy = -(wanted * credibility.log() + (1 - wanted) * (1 - credibility).log())
        weight = self.gamma ** len(outputs["flows"])
        return {
            "first_loss": weight * error.abs().mean(),
            "credibility_loss": self.weight * (known * entropy).sum() / known.sum().clamp(min=1),
            "first_epe": error.detach().norm(dim=1).sum() / valid.sum().clamp(min=1),
        }
