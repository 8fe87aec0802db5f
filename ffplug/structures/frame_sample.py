"""What one sample is where a frame is to be produced: interpolation, extrapolation, super-sampling."""

from __future__ import annotations

from typing import ClassVar

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from ffplug.structures.fields import Field
from ffplug.structures.flow_sample import shown_name


class FrameDataSample(BaseDataElement):
    """A frame to produce; a field that a sample does not have is absent.

    Attributes:
        gt_frame: the true frame, 3×H×W float32 RGB, 1 = white.
        pred_frame: the produced frame, the same, without padding; not clamped.
        base_frame: what there is without a network (the enlarged input, the mean of two frames), to compare with.

    A further field ``region_NAME``, H×W float32 in 0..1, is a part of the frame whose figures are of interest, such as
    holes. Its metainfo holds ``dataset``, ``sequence`` (str), ``frame`` (int), ``sample_id`` (unique in its data set),
    ``procedural`` (bool), ``draw`` (position in the training stream, or None), and ``kind`` (str) where a data set's
    frames are produced in several ways that are to be told apart.
    """

    FIELDS: ClassVar[dict[str, Field]] = {
        "gt_frame": Field("3 H W", torch.float32),
        "pred_frame": Field("3 H W", torch.float32),
        "base_frame": Field("3 H W", torch.float32),
    }
    """What each field promises."""

    gt_frame: Tensor
    pred_frame: Tensor
    base_frame: Tensor

    @property
    def source(self) -> str:
        """The data set's name as it must be shown."""
        return shown_name(self.get("dataset", "unknown data"), self.get("procedural", False))
