"""What the network takes, as one tensor: the order of its channels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ffplug.models.export import Channel

CHANNELS = 28
"""Channels of the packed input."""

HISTORY = 3
"""Earlier frames that are warped to the frame to produce."""

OUTSIDES = ("black", "repeat")
"""What a warp may hold where it would come from outside of the earlier frame: black, or that frame's border."""

SCALE = 2
"""Pixels of the result to one of the input, each way."""

NAMES = (
    *(f"color.{c}" for c in "rgb"),
    *(f"plain.{c}" for c in "rgb"),
    *(f"normal.{c}" for c in "xyz"),
    "depth",
    "roughness",
    "metallic",
    *(f"base_color.{c}" for c in "rgb"),
    "mask",
    *(f"history.{age}.{c}" for age in ("oldest", "middle", "newest") for c in ("r", "g", "b", "mask")),
)
"""The packed input's channels by name."""

MASKS = [place for place, name in enumerate(NAMES) if name.endswith("mask")]
"""Where the masks are among them."""

_MEANINGS = {
    "color": "newest shaded frame warped to the frame to produce, its holes filled by the occlusion motion",
    "plain": "the same frame warped without regard to holes",
    "normal": "world normal of the frame to produce; 0 for the sky",
    "depth": "distance along the view as a share of the far distance; 1 for the sky",
    "roughness": "of the surface",
    "metallic": "of the surface",
    "base_color": "of the surface, linear",
    "mask": "1 = the warped frame is valid here, 0 = hole",
    "history": "an earlier shaded frame warped without regard to holes, and its mask",
}

CONVENTIONS = {
    "colour": "display-encoded (sRGB) red, green, blue; 1 is white; black (0) where the warp came from outside",
    "grid": "row 0 is at the top; input and output share their upper left corner; there is no jitter of the camera",
    "motion": "warps use motion from the frame to produce to an earlier one, in input pixels, x right, y down: what "
    "shows at p was at p + motion(p); an engine's vectors (y up, earlier to present) have x negated",
    "history": "oldest first: for a shaded frame t those of t-4, t-2, t; for an extrapolated one t-5, t-3, t-1; what "
    "is missing after a cut is the newest with its mask 0",
    "shaded": "for a shaded frame color and plain are that frame, and the mask is 1",
    "padding": "sides in multiples of 8: repeat the last row and column, and cut twice as many off the result",
    "output": "not clamped; a display needs 0..1",
}
"""What whoever feeds the network must know beside its channels."""


class Inputs(NamedTuple):
    """The four inputs of the network, at the low resolution; sides are multiples of 8.

    Attributes:
        x: N×6×H×W, RGB in 0..1: the newest shaded frame warped to the frame to produce with its holes filled, and the
            same warp as it is. For a shaded frame both are that frame.
        feature: N×9×H×W, buffers of the frame to produce: world normal (-1..1), depth (0..1), roughness, metallic,
            base colour (0..1).
        mask: N×1×H×W, 1 = valid, 0 = hole.
        history: N×3×4×H×W, earlier shaded frames warped to the frame to produce, oldest first: RGB and mask.
    """

    x: Tensor
    feature: Tensor
    mask: Tensor
    history: Tensor

    def pack(self) -> Tensor:
        """All channels in one tensor, N×28×H×W."""
        return torch.cat([self.x, self.feature, self.mask, self.history.flatten(1, 2)], dim=1)


def unpack(packed: Tensor) -> Inputs:
    """The four inputs of a packed tensor N×28×H×W; no data is copied."""
    x, feature, mask, history = packed.split((6, 9, 1, 4 * HISTORY), dim=1)
    return Inputs(x, feature, mask, history.unflatten(1, (HISTORY, 4)))


def described() -> dict[str, tuple[Channel, ...]]:
    """The channels of the four inputs, and of the frame that comes out, with their ranges and meaning."""
    ends = {"x": 6, "feature": 15, "mask": 16, "history": CHANNELS}
    tables, first = {}, 0
    for name, end in ends.items():
        tables[name] = tuple(_channel(channel) for channel in NAMES[first:end])
        first = end
    tables["frame"] = tuple(Channel(f"frame.{c}", None, None, "the frame at twice the size") for c in "rgb")
    return tables


def _channel(name: str) -> Channel:
    kind = name.partition(".")[0]
    return Channel(name, -1.0 if kind == "normal" else 0.0, 1.0, _MEANINGS[kind])
