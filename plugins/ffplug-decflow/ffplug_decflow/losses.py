"""The loss of the decomposed flow."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ffplug.datasets.base import choose
from ffplug.errors import DataError
from ffplug.models.losses import SequenceLoss
from ffplug.models.parts import FlowLoss
from ffplug_decflow.registry import MODELS


@MODELS.register_module()
class DecomposedLoss(FlowLoss):
    """Sequence losses of facial, head and expression flow: ``L_f + 0.8 L_h + 1.5 L_e`` (DecFlow, ACM MM 2024).

    Each is :class:`ffplug.SequenceLoss <ffplug.models.losses.SequenceLoss>`; the true expression flow is the
    difference of the other two. It needs the estimator's flows ``flows``, ``head_flows`` and ``expression_flows``, and
    samples with true ``head_flow`` and ``head_valid``.

    Args:
        gamma: decay of the weight from the last iteration back.
        max_flow: facial or head flow of this length (pixels) or more is left out.
        head_weight: weight of the head flow's loss.
        expression_weight: weight of the expression flow's loss.
        masking: where the expression flow counts: ``'both'``, where facial and head flow do; or ``'published'``, where
            the head flow is valid, whatever the facial flow is and however long.

    Example:
        dict(type="ffplug_decflow.DecomposedLoss")
    """

    def __init__(
        self,
        gamma: float = 0.85,
        max_flow: float = 400.0,
        head_weight: float = 0.8,
        expression_weight: float = 1.5,
        masking: str = "both",
    ) -> None:
        super().__init__()
        self.published = choose("masking", masking, ("both", "published")) == "published"
        self.max_flow = max_flow
        self.facial = SequenceLoss(gamma, max_flow)
        self.head = SequenceLoss(gamma, max_flow, name="head", weight=head_weight)
        self.expression = SequenceLoss(gamma, float("inf"), name="expression", weight=expression_weight)

    def forward(self, outputs: dict[str, Any], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """``loss``, ``head_loss`` and ``expression_loss``, and the end-point errors and shares of each for the log.

        Raises:
            DataError: the samples have no true head flow.
        """
        missing = {"flow", "valid", "head_flow", "head_valid"} - targets.keys()
        if missing:
            raise DataError(
                f"the samples have no true {', '.join(sorted(missing))}: DecomposedLoss needs facial and head flow, as "
                "ffplug_decflow.FacialFlowNetDataset gives them"
            )
        flow, head_flow = targets["flow"], targets["head_flow"]
        valid = targets["head_valid"]
        if not self.published:
            valid = valid * targets["valid"]
            for truth in (flow, head_flow):
                valid = valid * (truth.norm(dim=1) < self.max_flow)
        expression = {"expression_flow": flow - head_flow, "expression_valid": valid}
        return {
            **self.facial(outputs, targets),
            **self.head(outputs, targets),
            **self.expression(outputs, expression),
        }
