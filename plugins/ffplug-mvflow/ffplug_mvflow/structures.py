"""What a sample with motion vectors is."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ffplug.structures import Field, FlowDataSample


class MotionSample(FlowDataSample):
    """A flow sample whose network also reads motion vectors.

    Attributes:
        input_motion_flow: flow from frame 1 to frame 2 by the codec's vectors, 2×H×W float32, pixels; 0 where unknown.
        input_motion_valid: where it is known, H×W float32 in {0, 1}.
        input_motion_gap: 1 / |distance to the reference in frames|, H×W float32; 0 where unknown.
        input_motion_size: log2 of the block's area in pixels, H×W float32; 0 where unknown.
    """

    FIELDS: ClassVar[dict[str, Field]] = {
        **FlowDataSample.FIELDS,
        "input_motion_flow": Field("2 H W", torch.float32),
        "input_motion_valid": Field("H W", torch.float32, 0, 1),
        "input_motion_gap": Field("H W", torch.float32, 0),
        "input_motion_size": Field("H W", torch.float32, 0),
    }

    input_motion_flow: Tensor
    input_motion_valid: Tensor
    input_motion_gap: Tensor
    input_motion_size: Tensor
