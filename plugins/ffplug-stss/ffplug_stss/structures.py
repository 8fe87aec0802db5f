"""What a sample is."""

from __future__ import annotations

from typing import ClassVar

import torch

from ffplug.structures import Field, FrameDataSample
from ffplug_stss.channels import CHANNELS


class SupersampleSample(FrameDataSample):
    """A frame to produce at twice the size of its inputs; ``kind`` is ``"SF"`` or ``"EF"``.

    Beside what :class:`ffplug.structures.FrameDataSample` has, the metainfo holds ``input_shape`` (H, W).

    Attributes:
        region_hole: how much of each pixel lies in a hole, 2H×2W float32 in 0..1.
    """

    FIELDS: ClassVar[dict[str, Field]] = {
        **FrameDataSample.FIELDS,
        "inputs": Field(f"{CHANNELS} H W", torch.float32),
        "gt_frame": Field("3 2H 2W", torch.float32),
        "pred_frame": Field("3 2H 2W", torch.float32),
        "base_frame": Field("3 2H 2W", torch.float32),
        "region_hole": Field("2H 2W", torch.float32, 0, 1),
    }
