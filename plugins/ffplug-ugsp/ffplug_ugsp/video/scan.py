"""What a first pass over a video finds: the frames' times, scene cuts and duplicates."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import median

import numpy as np

SAME = 2
"""Grey levels by which a thumbnail may differ from another at most, at any pixel, to show the same frame."""
BINS = 32
FLAT = 8
"""Grey levels of contrast below which a picture is as good as black or white, which a scene fades to."""
SUDDEN = 2.5
"""How many times the usual difference of its neighbours a cut must show, so that fast motion is none."""


@dataclass(frozen=True, eq=False)
class Scan:
    """What is known of a video of N frames.

    Attributes:
        times: when each frame is shown, and when the last one ends; N+1 growing int64, in ``time_base``.
        time_base: seconds.
        rate: frames per second that the file declares.
        change: N float32: how suddenly a frame differs from the one before, see :class:`Scanner`; a cut where it is
            above the threshold.
        duplicate: N bool: the frame shows what the one before it shows.
        untimed: whether the file tells no times, and they are counted.
    """

    times: np.ndarray
    time_base: Fraction
    rate: Fraction
    change: np.ndarray
    duplicate: np.ndarray
    untimed: bool = False

    def __len__(self) -> int:
        return len(self.duplicate)


@dataclass
class Scanner:
    """Finds cuts and duplicates in grey thumbnails, frame by frame.

    A frame's change is the mean of two differences from the frame before, both in 0..1: the mean absolute one of luma,
    and half the chi-squared one of the histograms of luma; as far as no other brightness and contrast of the frame
    before explains it, as in fades and flicker. It counts only where it is more than :data:`SUDDEN` times its median
    over the last eight frames. A duplicate differs by at most :data:`SAME` levels from the first
    frame of its run at every pixel, so that slow changes do not add up unseen.
    """

    change: list[float] = field(default_factory=list)
    duplicate: list[bool] = field(default_factory=list)
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=8))
    _first: np.ndarray | None = None
    _before: np.ndarray | None = None

    def add(self, thumbnail: np.ndarray) -> None:
        """Take the next frame, h×w uint8."""
        picture = thumbnail.astype(np.int16)
        if self._before is None:
            self._first = self._before = picture
            self.change.append(0.0)
            self.duplicate.append(False)
            return
        same = bool(np.abs(picture - self._first).max() <= SAME)
        change = 0.0
        if not same:
            self._first = picture
            difference = float(np.abs(picture - self._before).mean()) / 255
            change = (difference + _chi_squared(picture, self._before)) / 2 * _unlike(picture, self._before)
            usual = median(self._recent) if self._recent else 0.0
            self._recent.append(change)
            if change <= SUDDEN * usual:
                change = 0.0
        self.change.append(change)
        self.duplicate.append(same)
        self._before = picture


def _chi_squared(one: np.ndarray, other: np.ndarray) -> float:
    first, second = (
        np.bincount(picture.ravel() * BINS // 256, minlength=BINS) / picture.size for picture in (one, other)
    )
    total = first + second
    return float(((first - second) ** 2 / np.where(total > 0, total, 1)).sum()) / 2


def _unlike(one: np.ndarray, other: np.ndarray) -> float:
    """What of a picture's contrast the other lacks at any brightness and contrast: 0 alike or flat, 1 unlike."""
    first, second = (picture - picture.mean() for picture in (one, other))
    contrasts = first.std(), second.std()
    if not min(contrasts):
        return 0.0
    likeness = max(0.0, float((first * second).mean())) / (contrasts[0] * contrasts[1])
    return max(0.0, 1 - likeness**2) ** 0.5 * min(1.0, float(min(contrasts)) / FLAT)
