"""What a sample is: one face, or the frames of one person's video."""

from __future__ import annotations

from typing import ClassVar

import torch
from mmengine.structures import BaseDataElement

from ffplug.structures import Field, shown_name


class FaceSample(BaseDataElement):
    """One face; a field that a sample does not have is absent.

    Its metainfo holds ``dataset``, ``sample_id`` (unique in its data set), ``procedural`` (bool) and ``draw``.

    Attributes:
        gt_expr: int64, the expression's class.
        pred_image: 3×S×S float32, the reconstruction in 0..1.
        pred_mask: S×S bool, where the reconstruction shows something.
        pred_depth: S×S float32, canonical depth.
        pred_albedo: 3×S×S float32 in 0..1, canonical.
        pred_identity: 2C float32, the identity's share of the albedo's and the depth's code.
        pred_expression: 2C float32, what remains of them.
        pred_va: 2 float32, valence and arousal.
        pred_expr: int64, the likeliest expression.
        pred_expr_probability: one for each class.
        pred_au: one for each action unit, probabilities.
    """

    FIELDS: ClassVar[dict[str, Field]] = {
        "inputs": Field("3 S S", torch.uint8),
        "gt_expr": Field("", torch.int64, low=0),
        "pred_image": Field("3 S S", torch.float32, 0, 1),
        "pred_mask": Field("S S", torch.bool),
        "pred_depth": Field("S S", torch.float32, 0.8, 1.2),
        "pred_albedo": Field("3 S S", torch.float32, 0, 1),
        "pred_identity": Field("D", torch.float32),
        "pred_expression": Field("D", torch.float32),
        "pred_va": Field("2", torch.float32, -1, 1),
        "pred_expr": Field("", torch.int64, low=0),
        "pred_expr_probability": Field("K", torch.float32, 0, 1),
        "pred_au": Field("U", torch.float32, 0, 1),
    }

    @property
    def source(self) -> str:
        """The data set's name as it must be shown."""
        return shown_name(self.get("dataset", "unknown data"), self.get("procedural", False))


class VideoCodes(BaseDataElement):
    """Codes of a video's frames, in the place of :class:`ffplug_face.portraits.videos.FaceVideoSample`.

    Attributes:
        pred_identity: N×2C float32, one row a frame.
        pred_expression: N×2C float32.
    """

    FIELDS: ClassVar[dict[str, Field]] = {
        "inputs": Field("N 3 S S", torch.uint8),
        "pred_identity": Field("N D", torch.float32),
        "pred_expression": Field("N D", torch.float32),
    }
