"""What a sample is."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ffplug.structures import Field, FrameDataSample


class InterpolationSample(FrameDataSample):
    """A frame to produce between two others.

    Beside what :class:`ffplug.structures.FrameDataSample` has, the metainfo holds ``timestep`` (0 = the first frame,
    1 = the second; 0.5 where it is absent). The two frames are ``inputs``, RGB with 1 = white.

    Attributes:
        gt_labels: which pixels are worth computing, 3×H×W in 0..1 for the masks at 1/8, 1/4 and 1/2 of the resolution.
        gt_flow: flow from the frame to produce to the first frame (channels 0 and 1) and to the second (2 and 3), in
            pixels, 4×H×W.
        region_occluded: where the frame to produce shows what one of the two does not, H×W, 0 or 1.
    """

    FIELDS: ClassVar[dict[str, Field]] = {
        **FrameDataSample.FIELDS,
        "inputs": Field("2 3 H W", torch.float32, 0, 1),
        "gt_labels": Field("3 H W", torch.float32, 0, 1),
        "gt_flow": Field("4 H W", torch.float32),
        "region_occluded": Field("H W", torch.float32, 0, 1),
    }

    gt_labels: Tensor
    gt_flow: Tensor
    region_occluded: Tensor
