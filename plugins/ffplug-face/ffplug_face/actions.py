"""Facial actions: FACS action units as ARKit's blend shapes, and emotions as sets of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PAIRED = ("Left", "Right")

ACTION_UNITS: Mapping[int, tuple[str, ...]] = {
    1: ("browInnerUp",),
    2: ("browOuterUp*",),
    4: ("browDown*",),
    5: ("eyeWide*",),
    6: ("cheekSquint*",),
    7: ("eyeSquint*",),
    9: ("noseSneer*",),
    10: ("mouthUpperUp*",),
    12: ("mouthSmile*",),
    14: ("mouthDimple*",),
    15: ("mouthFrown*",),
    16: ("mouthLowerDown*",),
    17: ("mouthShrugLower",),
    18: ("mouthPucker",),
    20: ("mouthStretch*",),
    22: ("mouthFunnel",),
    24: ("mouthPress*",),
    26: ("jawOpen",),
    28: ("mouthRollLower", "mouthRollUpper"),
    43: ("eyeBlink*",),
}
"""Blend shapes of each action unit (Ekman and Friesen's numbers); ``*`` stands for Left and Right."""

EMOTIONS: Mapping[str, tuple[str, ...]] = {
    "neutral": (),
    "happiness": ("mouthSmile*", "cheekSquint*"),
    "sadness": ("browInnerUp", "mouthFrown*"),
    "surprise": ("browOuterUp*", "browInnerUp", "eyeWide*", "jawOpen"),
    "anger": ("browDown*", "mouthPress*", "noseSneer*"),
    "disgust": ("noseSneer*", "mouthUpperUp*"),
    "fear": ("browInnerUp", "eyeWide*", "mouthStretch*"),
    "contempt": ("mouthSmile?", "mouthDimple?"),
}
"""Blend shapes of each emotion; ``*`` stands for Left and Right, ``?`` for one side of the two."""


def sides(name: str, side: str | None = None) -> list[str]:
    """The blend shapes that a pattern of :data:`ACTION_UNITS` or :data:`EMOTIONS` names.

    Args:
        name: such as ``browInnerUp``, ``mouthSmile*`` or ``mouthSmile?``.
        side: ``Left`` or ``Right`` to take one of the two; needed for ``?``.
    """
    if name.endswith("?"):
        return [f"{name[:-1]}{side or 'Left'}"]
    if name.endswith("*"):
        return [f"{name[:-1]}{each}" for each in ([side] if side else _PAIRED)]
    return [name]


def action_unit_weights(name: str) -> dict[str, float]:
    """The blend shapes of ``AU12``, ``AU12L`` or ``AU12R``, each with weight 1; none where it is no action unit."""
    match = re.fullmatch(r"AU(\d+)([LR]?)", name)
    if match is None or int(match[1]) not in ACTION_UNITS:
        return {}
    side = {"": None, "L": "Left", "R": "Right"}[match[2]]
    return {each: 1.0 for pattern in ACTION_UNITS[int(match[1])] for each in sides(pattern, side)}
