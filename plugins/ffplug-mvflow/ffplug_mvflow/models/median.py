"""A prior from motion vectors that has nothing to learn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.models.parts import Encoded, Lookup, Start
from ffplug_mvflow.models.motion import MotionPrior, median
from ffplug_mvflow.registry import MODELS


@MODELS.register_module()
class MedianMotionPrior(MotionPrior):
    """Starts from the median of the motion vectors round each cell; holes are filled from their surroundings.

    Credibility falls with a vector's distance d from that median: ``exp(-d / scale)``. It has no parameters, so any
    trained estimator takes it.

    Args:
        side: of the square that the median is taken over, in cells, odd.
        scale: in pixels.
        b_frames: whether videos may have B frames.
        search: see :class:`ffplug_mvflow.video.MotionVectorVideo`.
        init_cfg: see MMEngine's ``BaseModule``.

    Example:
        dict(type="ffplug_mvflow.MedianMotionPrior")
    """

    def __init__(
        self,
        side: int = 3,
        scale: float = 2.0,
        b_frames: bool = True,
        search: bool | str = "auto",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(b_frames, search, init_cfg)
        self.side = side
        self.scale = scale

    def forward(self, encoded: Encoded, lookup: Lookup, flow_init: Tensor | None) -> Start:
        """See :class:`ffplug.models.parts.Prior`; a warm start serves the cells without vectors round them."""
        motion = self.motion(encoded)
        centre = median(motion.flow, motion.valid, self.side)
        away = (motion.flow - centre).norm(dim=1, keepdim=True) * self.stride
        credibility = motion.valid * torch.exp(-away / self.scale)
        near = F.max_pool2d(motion.valid, self.side, 1, self.side // 2)
        flow = fill(centre * near, near) if flow_init is None else torch.where(near > 0, centre, flow_init.to(centre))
        return Start(flow, encoded.context, {"credibility": credibility})


def fill(flow: Tensor, valid: Tensor) -> Tensor:
    """Fill the holes of flow N×2×h×w with the mean of what is known round them, again and again until none is left."""
    for _ in range(max(flow.shape[-2:])):
        if bool((valid.flatten(1).sum(dim=1) % valid[0].numel() == 0).all()):  # each sample is full, or has nothing
            break
        share = F.avg_pool2d(valid, 3, 1, 1)
        mean = F.avg_pool2d(flow * valid, 3, 1, 1) / torch.where(share > 0, share, 1)
        flow = torch.where(valid > 0, flow, mean)
        valid = (share > 0).to(valid)
    return flow
