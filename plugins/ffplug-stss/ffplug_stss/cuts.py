"""Whether the camera has jumped between two frames, told from their buffers."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

CUT = 0.45
"""Agreement below which there was a cut; what it misses and what it mistakes is told by ``benchmarks/stss.py``."""

STRIDE = 4
"""Every so many rows and columns are looked at."""

_COLOUR = 0.15
_NORMAL = 0.8
_DEPTH = 0.3
_SKY = 1.0


class Surface(Protocol):
    """Buffers of a frame, C×H×W each; see :class:`ffplug_stss.supersampler.GBuffer`."""

    normal: Tensor
    depth: Tensor
    base_color: Tensor


def agreement(now: Surface, then: Surface, motion: Tensor) -> float:
    """Share of a frame whose surfaces are where its vectors say they were in the frame before.

    A pixel agrees where the base colour at its earlier place differs by at most 0.15, the normal by less than 37
    degrees and the depth by less than a third. What comes from outside of the frame, and sky that stays sky, do not
    count. Base colour knows no light, so what flickers or casts shadows is no cut.

    Args:
        now: buffers of the frame.
        then: of the frame before it.
        motion: from the frame to that one, 2×H×W pixels.

    Returns:
        0..1; 1 where nothing can be compared.
    """
    height, width = motion.shape[1:]
    rows = torch.arange(0, height, STRIDE, device=motion.device)
    columns = torch.arange(0, width, STRIDE, device=motion.device)
    step = motion[:, ::STRIDE, ::STRIDE].float()
    x, y = (columns + step[0]).round(), (rows[:, None] + step[1]).round()
    there = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    place = (torch.where(there, y, 0) * width + torch.where(there, x, 0)).long()

    def both(values: Tensor, earlier: Tensor) -> tuple[Tensor, Tensor]:
        return values[:, ::STRIDE, ::STRIDE].float(), earlier.flatten(1)[:, place].float()

    colour, old_colour = both(now.base_color, then.base_color)
    normal, old_normal = both(now.normal, then.normal)
    depth, old_depth = (values[0] for values in both(now.depth, then.depth))
    sky, old_sky = depth >= _SKY, old_depth >= _SKY
    same = (colour - old_colour).abs().amax(dim=0) <= _COLOUR
    same &= sky == old_sky
    same &= sky | ((normal * old_normal).sum(dim=0) > _NORMAL)
    same &= (depth - old_depth).abs() <= _DEPTH * torch.maximum(depth, old_depth)
    counted = there & ~(sky & old_sky)
    total = int(counted.sum())
    return float((same & counted).sum()) / total if total else 1.0
