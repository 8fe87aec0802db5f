"""Losses of recurrent flow estimators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ffplug.models.parts import FlowLoss
from ffplug.registry import MODELS


@MODELS.register_module()
class SequenceLoss(FlowLoss):
    """L1 error of every iteration's flow, later ones weighing more (RAFT, equation 7).

    ``sum_i gamma^(n-1-i) · mean(valid · |flow_i - gt|)``, where the mean runs over all N·2·H·W entries: invalid ones
    count as zeros in the denominator, as published. Also gives the last prediction's end-point error and the shares
    below 1, 3 and 5 px over the valid pixels, for the log.

    Args:
        gamma: decay of the weight from the last iteration back.
        max_flow: ground truth of this length (pixels) or more is left out.
        name: which flow: ``""`` for the main one, or the name of a further decoder.
        weight: factor of the whole term.
    """

    def __init__(self, gamma: float = 0.8, max_flow: float = 400.0, name: str = "", weight: float = 1.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.max_flow = max_flow
        self.prefix = f"{name}_" if name else ""
        self.weight = weight

    def forward(self, outputs: dict[str, Any], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`ffplug.models.parts.FlowLoss`."""
        flows: list[Tensor] = outputs[f"{self.prefix}flows"]
        truth = targets[f"{self.prefix}flow"]
        valid = (targets[f"{self.prefix}valid"] >= 0.5) & (truth.norm(dim=1) < self.max_flow)
        # Where the truth is not valid it may be anything, NaN included, so it is masked before the difference.
        truth = torch.where(valid[:, None], truth, 0)
        weight = valid[:, None].to(truth.dtype)
        loss = truth.new_zeros(())
        for index, flow in enumerate(flows):
            term = (weight * (flow - truth)).abs().mean()
            loss = loss + self.gamma ** (len(flows) - 1 - index) * term
        result = {f"{self.prefix}loss": self.weight * loss}
        with torch.no_grad():
            count = valid.sum().clamp(min=1)
            error = (flows[-1].detach() - truth).norm(dim=1)
            result[f"{self.prefix}epe"] = (error * valid).sum() / count
            for threshold in (1, 3, 5):
                result[f"{self.prefix}{threshold}px"] = ((error < threshold) & valid).sum() / count
        return result
