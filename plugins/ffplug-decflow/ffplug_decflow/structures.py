"""What a sample of facial flow is."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ffplug.structures import Field, FlowDataSample

_FLOW = Field("2 H W", torch.float32)
_LOW = Field("2 h w", torch.float32)
_VALID = Field("H W", torch.float32, 0, 1)


class FaceFlowSample(FlowDataSample):
    """Ground truth and prediction of a pair of face frames; ``gt_flow`` and ``pred_flow`` are the facial flow.

    Attributes:
        gt_head_flow: true flow if the head moved and the expression stayed, 2×H×W float32, pixels; 0 where invalid.
        gt_head_valid: where it is known, H×W float32 in {0, 1}.
        gt_expression_flow: facial flow minus head flow, 2×H×W float32, pixels; 0 where either is invalid.
        gt_expression_valid: where both are known, H×W float32 in {0, 1}.
        gt_mask: H×W bool, True = frame 1 shows the head.
        pred_head_flow: predicted head flow, 2×H×W float32, pixels.
        pred_head_flow_low: the same on the working grid, 2×h×w float32, grid cells.
        pred_expression_flow: predicted facial flow minus predicted head flow, 2×H×W float32, pixels.
    """

    FIELDS: ClassVar[dict[str, Field]] = {
        **FlowDataSample.FIELDS,
        "gt_head_flow": _FLOW,
        "gt_head_valid": _VALID,
        "gt_expression_flow": _FLOW,
        "gt_expression_valid": _VALID,
        "gt_mask": Field("H W", torch.bool),
        "pred_head_flow": _FLOW,
        "pred_head_flow_low": _LOW,
        "pred_expression_flow": _FLOW,
    }

    gt_head_flow: Tensor
    gt_head_valid: Tensor
    gt_expression_flow: Tensor
    gt_expression_valid: Tensor
    gt_mask: Tensor
    pred_head_flow: Tensor
    pred_head_flow_low: Tensor
    pred_expression_flow: Tensor
