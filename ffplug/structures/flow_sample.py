"""What one optical-flow sample is."""

from __future__ import annotations

from typing import ClassVar

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from ffplug.structures.fields import Field

_MASK = Field("H W", torch.bool)
_VALID = Field("H W", torch.float32, 0, 1)


class FlowDataSample(BaseDataElement):
    """Ground truth and prediction of one frame pair; a field that a sample does not have is absent.

    Attributes:
        gt_flow: true flow from frame 1 to frame 2, 2×H×W float32, pixels (x right, y down); 0 where invalid.
        gt_valid: where ``gt_flow`` is known, H×W float32 in {0, 1}.
        gt_flow_double: Spring's flow on its doubled grid, 2×2H×2W float32, pixels of the frames; NaN where unknown.
        gt_valid_noc: KITTI's ground truth without occluded pixels, H×W float32 in {0, 1}.
        gt_occlusion: H×W bool, True = the pixel is not visible in frame 2.
        gt_foreground: H×W bool, True = on a moving object (KITTI's object map).
        gt_detail: H×W bool, True = high detail (Spring).
        gt_nonrigid: H×W bool, True = moves by itself (Spring).
        gt_sky: H×W bool, True = sky (Spring).
        pred_flow: predicted flow without padding, 2×H×W float32, pixels.
        pred_flow_low: predicted flow on the working grid, 2×h×w float32, grid cells.

    Its metainfo holds ``img1_path``, ``img2_path`` and ``flow_path`` (str, or None), ``ori_shape`` (H, W on disk),
    ``dataset`` (such as ``'Sintel/clean'``), ``sequence`` (str), ``frame`` (int), ``sample_id`` (unique in its data
    set), ``procedural`` (bool) and ``draw`` (position in the training stream, or None).
    """

    FIELDS: ClassVar[dict[str, Field]] = {
        "inputs": Field("2 3 H W", torch.uint8),
        "gt_flow": Field("2 H W", torch.float32),
        "gt_valid": _VALID,
        "gt_flow_double": Field("2 2H 2W", torch.float32, finite=False),
        "gt_valid_noc": _VALID,
        "gt_occlusion": _MASK,
        "gt_foreground": _MASK,
        "gt_detail": _MASK,
        "gt_nonrigid": _MASK,
        "gt_sky": _MASK,
        "pred_flow": Field("2 H W", torch.float32),
        "pred_flow_low": Field("2 h w", torch.float32),
    }
    """What each field promises; ``inputs`` are the frames that a data set gives beside the sample."""

    gt_flow: Tensor
    gt_valid: Tensor
    gt_flow_double: Tensor
    gt_valid_noc: Tensor
    gt_occlusion: Tensor
    gt_foreground: Tensor
    gt_detail: Tensor
    gt_nonrigid: Tensor
    gt_sky: Tensor
    pred_flow: Tensor
    pred_flow_low: Tensor

    @property
    def source(self) -> str:
        """The data set's name as it must be shown: ``'procedural, not Sintel/clean'`` for a stand-in."""
        return shown_name(self.get("dataset", "unknown data"), self.get("procedural", False))


def shown_name(dataset: str, procedural: bool) -> str:
    """Name a data set in logs, tables and captions, so that a procedural stand-in is never taken for the real set."""
    return f"procedural, not {dataset}" if procedural and not dataset.startswith("procedural") else dataset
