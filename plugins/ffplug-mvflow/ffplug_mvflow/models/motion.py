"""What priors from motion vectors share: the vectors on the working grid, and the way to them in a video."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.errors import ConfigError
from ffplug.models.parts import Cost, Encoded, FrameEncoder, Prior
from ffplug_mvflow.fields import INPUTS


@dataclasses.dataclass
class Motion:
    """Motion vectors on the working grid.

    Attributes:
        flow: N×2×h×w, grid cells; 0 where not valid.
        valid: N×1×h×w, 0 or 1.
        gap: N×1×h×w, 1 / |distance to the reference|; 0 where not valid.
        size: N×1×h×w, log2 of the block's area in pixels; 0 where not valid.
    """

    flow: Tensor
    valid: Tensor
    gap: Tensor
    size: Tensor


class MotionPrior(Prior):
    """A prior that reads motion vectors (:data:`ffplug_mvflow.fields.INPUTS`).

    Args:
        b_frames: whether videos may have B frames.
        search: see :class:`ffplug_mvflow.video.MotionVectorVideo`.
        init_cfg: see MMEngine's ``BaseModule``.
    """

    def __init__(self, b_frames: bool = True, search: bool | str = "auto", init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if search not in (True, False, "auto"):
            raise ConfigError(f"model.prior.search={search!r}: expected True, False or 'auto'")
        self.b_frames = b_frames
        self.search = search
        self.stride = 8

    def connect(self, encoder: FrameEncoder, context_encoder: FrameEncoder, cost: Cost) -> None:
        """See :class:`ffplug.models.parts.Prior`."""
        self.stride = encoder.stride

    def open_video(self, path: str) -> Any:
        """Frames with motion vectors; see :class:`ffplug.models.parts.Prior`."""
        from ffplug_mvflow.video import MotionVectorVideo

        return MotionVectorVideo(path, self.b_frames, self.search)

    def example_inputs(self, height: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Vectors of some three pixels, on all but the right quarter."""
        valid = (torch.arange(width) < 3 * width // 4).float().expand(height, width)
        flow = 3 * torch.randn(2, -(-height // 8), -(-width // 8), generator=generator)
        flow = flow.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width]
        return dict(zip(INPUTS, (flow * valid, valid.clone(), valid.clone(), 6 * valid), strict=True))

    def motion(self, encoded: Encoded) -> Motion:
        """The sample's vectors on the working grid, means over a cell's known pixels; none where none are given."""
        found = [encoded.inputs.get(name) for name in INPUTS]
        if found[0] is None:
            empty = encoded.image1.new_zeros(len(encoded.image1), 1, *encoded.context.shape[-2:])
            return Motion(empty.repeat(1, 2, 1, 1), empty, empty, empty)
        flow, valid, gap, size = (value.float() for value in found)
        stacked = torch.cat((flow, gap[:, None], size[:, None]), dim=1) * valid[:, None]
        share = F.avg_pool2d(valid[:, None], self.stride)
        mean = F.avg_pool2d(stacked, self.stride) / torch.where(share > 0, share, 1)
        return Motion(mean[:, :2] / self.stride, (share > 0).float(), mean[:, 2:3], mean[:, 3:4])


def median(flow: Tensor, valid: Tensor, side: int) -> Tensor:
    """Median of the valid cells within a square, by component; 0 where there is none.

    Args:
        flow: N×2×h×w.
        valid: N×1×h×w, 0 or 1.
        side: of the square, odd.
    """
    count, _, height, width = flow.shape
    known = F.unfold(valid, side, padding=side // 2).view(count, 1, side * side, height, width)
    values = F.unfold(flow, side, padding=side // 2).view(count, 2, side * side, height, width)
    return torch.where(known > 0, values, torch.nan).nanmedian(dim=2).values.nan_to_num(0.0)
