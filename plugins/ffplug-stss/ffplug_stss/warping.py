"""Earlier frames at the place of the present one: vectors over several frames, warping, holes and what fills them.

Motion is flow in pixels of the low resolution, N×2×H×W, x to the right and y down, from a frame to an *earlier* one:
what shows at ``p`` was at ``p + motion(p)``. Engines store it with y up and from the earlier frame; :func:`from_engine`
takes that. The rules named *published* are those of ExtraNet's data (Guo et al., SIGGRAPH Asia 2021), from which STSS's
come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.errors import ConfigError
from ffplug.ops import backward_warp

OUTSIDE = -1.0
"""What a warped colour is where there is nothing."""

COMPOSITIONS = ("exact", "published")
_ROUNDING = 1e-4
_BETTER = 0.6


def from_engine(vectors: Tensor) -> Tensor:
    """Vectors N×2×H×W of an engine (x right, y up, earlier to present) as motion, and back."""
    return vectors * vectors.new_tensor([-1.0, 1.0])[:, None, None]


def compose(motions: Sequence[Tensor], rule: str = "exact") -> Tensor:
    """Motion over several frames from the motion of each to the one before.

    Args:
        motions: of the present frame first, then of the one before, and so on; N×2×H×W each.
        rule: ``exact`` follows a pixel from the present backwards, reading each motion where it has arrived;
            ``published`` starts at the oldest and adds the longest of the four vectors around, or nothing where one of
            them is zero or outside.

    Raises:
        ConfigError: there is no such rule.
    """
    if rule not in COMPOSITIONS:
        raise ConfigError(f"compose={rule!r}: expected one of {', '.join(map(repr, COMPOSITIONS))}")
    if rule == "exact":
        total = motions[0]
        for motion in motions[1:]:
            total = total + backward_warp(motion, total, "border")
        return total
    total = motions[-1]
    for motion in reversed(motions[:-1]):
        longest = torch.zeros_like(motion)
        length = motion.new_full(motion[:, :1].shape, -1.0)
        zero = torch.zeros_like(length, dtype=torch.bool)
        for vector in corner_values(motion, total, outside=0.0):
            size = vector.square().sum(dim=1, keepdim=True)
            zero |= size == 0
            longer = size > length
            longest, length = torch.where(longer, vector, longest), torch.where(longer, size, length)
        total = total + torch.where(zero, 0.0, longest)
    return total


def better_turn(now: Mapping[str, Tensor], then: Mapping[str, Tensor]) -> str | None:
    """Tell how the vectors of a frame fit better to the one before: with x and y swapped, or a sign changed.

    Args:
        now: ``image`` and ``motion`` of the frame, 1×C×H×W each.
        then: ``image`` of the one before.

    Returns:
        A part of a sentence, or None where they fit well enough as they are.
    """
    kept = now["motion"]
    turns = {
        "x negated": kept * kept.new_tensor([-1.0, 1.0])[:, None, None],
        "y negated": kept * kept.new_tensor([1.0, -1.0])[:, None, None],
        "both negated": -kept,
        "x and y swapped": kept.flip(1),
    }

    def error(motion: Tensor) -> float:
        return float((backward_warp(then["image"], motion, "border") - now["image"]).abs().mean())

    own = error(kept)
    name, best = min(((name, error(motion)) for name, motion in turns.items()), key=lambda pair: pair[1])
    if best >= _BETTER * own:
        return None
    return f"{name} the vectors fit the frames better (mean error {best:.4f} to {own:.4f})"


def warp(image: Tensor, motion: Tensor) -> Tensor:
    """An earlier frame where the present one shows the same, bilinear; what lies outside is -1.

    Args:
        image: N×C×H×W, not negative.
        motion: N×2×H×W, from the present frame to that one.

    Returns:
        N×C×H×W; a sample to which the outside contributes more than a tenth or so is -1, as published.
    """
    framed = F.pad(image, [1] * 4, value=-10.0)
    warped = backward_warp(framed, F.pad(motion.to(image.dtype), [1] * 4), "border")[..., 1:-1, 1:-1]
    return torch.where(warped < 0, OUTSIDE, warped)


def inside(motion: Tensor) -> Tensor:
    """Whether a pixel's earlier place lies in the frame, on or between the centres of its pixels, N×1×H×W bool."""
    x, y = places(motion)
    height, width = motion.shape[2:]
    # Motion is a difference of rounded positions, so a still pixel of the border may be off by a rounding.
    kept = (x >= -_ROUNDING) & (y >= -_ROUNDING) & (x <= width - 1 + _ROUNDING) & (y <= height - 1 + _ROUNDING)
    return kept[:, None]


def places(motion: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row where each pixel was, N×H×W each."""
    height, width = motion.shape[2:]
    columns = torch.arange(width, device=motion.device, dtype=motion.dtype)
    rows = torch.arange(height, device=motion.device, dtype=motion.dtype)
    return motion[:, 0] + columns, motion[:, 1] + rows[:, None]


def corner_values(values: Tensor, motion: Tensor, outside: float | None = None) -> Iterator[Tensor]:
    """The values at the four pixels around each pixel's earlier place.

    Args:
        values: N×C×H×W.
        motion: N×2×H×W, finite.
        outside: the value outside of the frame; None takes the nearest pixel's.

    Yields:
        N×C×H×W, row after row.
    """
    height, width = motion.shape[2:]
    x, y = (place.floor().long() for place in places(motion))
    flat = values.flatten(2)
    for row in (y, y + 1):
        for column in (x, x + 1):
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            taken = flat.gather(2, index.flatten(1)[:, None].expand(flat.shape)).view(values.shape)
            if outside is not None:
                there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                taken = torch.where(there[:, None], taken, outside)
            yield taken


def same_surface(labels: Tensor, earlier: Tensor, motion: Tensor) -> Tensor:
    """Whether all four pixels around a pixel's earlier place belong to its object, N×1×H×W bool.

    Args:
        labels: of the present frame, N×1×H×W.
        earlier: of the earlier one.
        motion: N×2×H×W.
    """
    same = torch.ones_like(labels, dtype=torch.bool)
    for values in corner_values(earlier, motion):
        same &= values == labels
    return same


def same_depth(depth: Tensor, earlier: Tensor, motion: Tensor, tolerance: float) -> Tensor:
    """Whether a pixel's depth lies between those around its earlier place, or a share of it beside, N×1×H×W bool.

    For want of labels: the seams of objects count as valid, and what nears the camera fast as something else.
    """
    around = torch.stack(list(corner_values(earlier, motion)))
    slack = tolerance * depth.clamp(min=1e-3)
    return (depth >= around.amin(dim=0) - slack) & (depth <= around.amax(dim=0) + slack)


def distance(world: Tensor, earlier: Tensor, motion: Tensor) -> Tensor:
    """The largest distance between a pixel's world position and the four around its earlier place, N×1×H×W.

    The published rule calls a static pixel a hole where it is above ``7.5 c + 45 (1 - c) + 50 depth`` centimetres with
    ``c = |normal · view|``. Positions are N×3×H×W; outside of the frame they are 1e5 on all axes.
    """
    return torch.stack(
        [(values - world).norm(dim=1, keepdim=True) for values in corner_values(earlier, motion, outside=1e5)]
    ).amax(dim=0)


def occlusion_motion(motion: Tensor, depth: Tensor) -> Tensor:
    """For each pixel the motion of what covered its earlier place: :class:`ffplug_stss.ops.SplatMotion`."""
    from ffplug_stss.ops import splat_motion  # whose neighbours are defined by what is above

    return splat_motion(motion, depth)


def fill_holes(warped: Tensor, image: Tensor, hole: Tensor, fetch: Tensor) -> Tensor:
    """Put into holes what the motion ``fetch`` brings from the newest frame; -1 where that is outside of it.

    Args:
        warped: the newest frame warped, N×3×H×W.
        image: that frame.
        hole: N×1×H×W bool.
        fetch: N×2×H×W, see :func:`occlusion_motion`.
    """
    return torch.where(hole, warp(image, fetch), warped)


def repeat_edge(image: Tensor, missing: Tensor) -> Tensor:
    """Put the colour of the nearest pixel that is there into those that are missing.

    Args:
        image: C×H×W on the CPU.
        missing: H×W bool; where all are, the image stays as it is.
    """
    absent = missing.numpy()
    if not absent.any() or absent.all():
        return image
    _, nearest = cv2.distanceTransformWithLabels(
        absent.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3, labelType=cv2.DIST_LABEL_PIXEL
    )
    place = np.zeros(nearest.max() + 1, np.int64)
    place[nearest[~absent]] = np.flatnonzero(~absent)
    return image.flatten(1)[:, torch.from_numpy(place[nearest].ravel())].view(image.shape)
