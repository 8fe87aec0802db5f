"""What a sample is."""

from __future__ import annotations

from typing import ClassVar

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from ffplug.structures import Field, shown_name


class AffectSample(BaseDataElement):
    """A picture of a face, what is known of it, what teachers say, and what is predicted.

    What is not known is absent: there is no number for "invalid". K is the number of expressions, U that of action
    units.

    Attributes:
        gt_va: valence and arousal, 2 in -1..1.
        gt_expr: index of the expression.
        gt_au: action units, U of 0 or 1.
        teacher_va: a teacher's valence and arousal, 2.
        teacher_va_bins: a teacher's probabilities of B values of valence, and of arousal, 2×B.
        teacher_expr: a teacher's probabilities, K.
        teacher_au: a teacher's probabilities, U.
        pred_va: 2, cut to ±0.99.
        pred_va_bins: 2×B probabilities, where the head has bins.
        pred_expr: index of the likeliest expression.
        pred_expr_probability: K, they sum up to 1.
        pred_au: U probabilities.
        pred_au_present: U of 0 or 1, by the model's thresholds.

    Its metainfo holds ``dataset``, ``sequence`` (the video, or whatever frames belong together), ``frame`` (int),
    ``sample_id`` (unique in its data set), ``procedural`` (bool) and ``draw`` (position in the training stream).
    """

    FIELDS: ClassVar[dict[str, Field]] = {
        "inputs": Field("3 H W", torch.uint8),
        "gt_va": Field("2", torch.float32, -1, 1),
        "gt_expr": Field("", torch.int64, 0),
        "gt_au": Field("U", torch.float32, 0, 1),
        "teacher_va": Field("2", torch.float32, -1, 1),
        "teacher_va_bins": Field("2 B", torch.float32, 0, 1),
        "teacher_expr": Field("K", torch.float32, 0, 1),
        "teacher_au": Field("U", torch.float32, 0, 1),
        "pred_va": Field("2", torch.float32, -1, 1),
        "pred_va_bins": Field("2 B", torch.float32, 0, 1),
        "pred_expr": Field("", torch.int64, 0),
        "pred_expr_probability": Field("K", torch.float32, 0, 1),
        "pred_au": Field("U", torch.float32, 0, 1),
        "pred_au_present": Field("U", torch.float32, 0, 1),
    }
    """What each field promises."""

    gt_va: Tensor
    gt_expr: Tensor
    gt_au: Tensor
    teacher_va: Tensor
    teacher_va_bins: Tensor
    teacher_expr: Tensor
    teacher_au: Tensor
    pred_va: Tensor
    pred_va_bins: Tensor
    pred_expr: Tensor
    pred_expr_probability: Tensor
    pred_au: Tensor
    pred_au_present: Tensor

    @property
    def source(self) -> str:
        """The data set's name as it must be shown."""
        return shown_name(self.get("dataset", "unknown data"), self.get("procedural", False))
