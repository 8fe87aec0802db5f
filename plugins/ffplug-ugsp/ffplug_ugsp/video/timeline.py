"""Which frames the result has, when each is shown, and what it is made from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ffplug.datasets.base import choose
from ffplug.errors import ConfigError
from ffplug_ugsp.video.scan import Scan

AT_CUT = ("nearest", "hold", "blend")
LONGEST_GAP = Fraction(1, 2)
"""Seconds between two frames from which on the first is a still picture, which no motion leads out of."""
LONGEST_RUN = 3
"""Duplicates in a row that are replaced; more of them are a still that someone wanted."""
SNAP = Fraction(1, 64)
"""Share of the way between two frames that no eye can tell from none."""


@dataclass(frozen=True)
class Shown:
    """What a frame of the result is made from.

    Attributes:
        first: number of the input frame before it.
        second: number of the one after it; the same as ``first`` where the input frame is shown as it is.
        time: share of the way from the first to the second, above 0 and below 1.
        mixed: whether the two are mixed and not interpolated, at a cut.
    """

    first: int
    second: int
    time: Fraction = Fraction(0)
    mixed: bool = False


class Timeline:
    """The result's frames, without any of them in memory; all times are exact.

    Between two frames of the input that differ, frames are interpolated. Duplicates, up to three in a row, are replaced
    by what was there at their time; those in longer runs stay. Nothing is interpolated over a cut (``at_cut``), nor
    over a gap of more than half a second.

    Attributes:
        scan: of the input.
        time_base: seconds; :meth:`time` counts in it.
        rate: frames per second, on average.

    Args:
        scan: of the input.
        factor: how many frames come in the place of one; times keep their spacing, variable or not.
        rate: frames per second of the result, in place of ``factor``.
        duplicates: whether they are replaced.
        cut: change above which a frame begins a new scene, see :class:`~ffplug_ugsp.video.scan.Scanner`.
        cuts: numbers of frames that begin a new scene, in place of ``cut``.
        at_cut: what is shown between the last frame of a scene and the first one of the next: ``nearest``, the one
            that is nearer in time; ``hold``, the last; ``blend``, a mixture.

    Raises:
        ConfigError: an argument is out of its range, or not exactly one of factor and rate is given.
    """

    def __init__(
        self,
        scan: Scan,
        factor: int | None = None,
        rate: Fraction | None = None,
        *,
        duplicates: bool = True,
        cut: float = 0.07,
        cuts: list[int] | None = None,
        at_cut: str = "nearest",
    ) -> None:
        if (factor is None) == (rate is None):
            raise ConfigError("expected either a factor (--x 2) or a frame rate (--fps 60)")
        if factor is not None and not 1 <= factor <= 64:
            raise ConfigError(f"factor={factor}: expected 1 to 64")
        self.at_cut = choose("at_cut", at_cut, AT_CUT)
        self.scan, self.factor = scan, factor
        times, unit = _regular(scan)
        if factor is not None:
            self.time_base, self.rate = unit / factor, scan.rate * factor
            self._scale, self._step = factor, 0
        else:
            self.time_base, self.rate = _common(unit, 1 / rate), rate
            self._scale, self._step = int(unit / self.time_base), int(1 / rate / self.time_base)
        self._times = times
        self._gap = LONGEST_GAP / unit
        count = len(scan)
        self.is_cut = scan.change > cut if cuts is None else np.zeros(count, bool)
        for number in cuts or ():
            if not 0 < number < count:
                raise ConfigError(f"cut at frame {number}: expected 1 to {count - 1}")
            self.is_cut[number] = True
        self.replaced = _replaced(scan.duplicate & ~self.is_cut) if duplicates else np.zeros(count, bool)
        kept = np.flatnonzero(~self.replaced)
        place = np.searchsorted(kept, np.arange(count), side="right") - 1
        self._before = kept[place]
        self._after = np.append(kept, count)[place + 1]
        self._still = scan.duplicate & ~self.replaced
        self._count = count

    def __len__(self) -> int:
        if self.factor is not None:
            return self.factor * self._count
        length = (int(self._times[-1]) - int(self._times[0])) * self._scale
        return max(1, math.ceil(Fraction(length, self._step)))

    def time(self, number: int) -> int:
        """When a frame of the result is shown, in ``time_base``; of number ``len`` when the last one ends."""
        if self.factor is None:
            return int(self._times[0]) * self._scale + number * self._step
        frame, part = divmod(number, self.factor)
        if frame == self._count:
            return self.factor * int(self._times[frame])
        return (self.factor - part) * int(self._times[frame]) + part * int(self._times[frame + 1])

    def shown(self, number: int) -> Shown:
        """What a frame of the result is made from."""
        time = self.time(number)
        frame = self._frame_at(time)
        first, second = int(self._before[frame]), int(self._after[frame])
        if second == self._count or self._still[second]:
            return Shown(frame, frame)
        if self.is_cut[second] or self._at(second) - self._at(second - 1) > self._gap * self._scale:
            return self._over_a_cut(time, frame, second)
        way = self._way(time, first, second)
        if way < SNAP:
            return Shown(first, first)
        return Shown(second, second) if 1 - way < SNAP else Shown(first, second, way)

    def _over_a_cut(self, time: int, frame: int, second: int) -> Shown:
        """Frames before the last one of a scene are shown as they are: what they would move to is not there."""
        last = second - 1
        way = self._way(time, last, second)
        if frame < last or way <= 0 or not self.is_cut[second] or self.at_cut == "hold":
            return Shown(frame, frame)
        if self.at_cut == "blend":
            return Shown(last, second, way, mixed=True)
        return Shown(last, last) if way <= Fraction(1, 2) else Shown(second, second)

    def _frame_at(self, time: int) -> int:
        """The input frame that is shown at a time."""
        return int(np.searchsorted(self._times[:-1], time // self._scale, side="right")) - 1

    def _at(self, frame: int) -> int:
        return int(self._times[frame]) * self._scale

    def _way(self, time: int, first: int, second: int) -> Fraction:
        return Fraction(time - self._at(first), self._at(second) - self._at(first))


def _regular(scan: Scan) -> tuple[np.ndarray, Fraction]:
    """The times and their unit: the exact ones where they are those of a constant rate, rounded (Matroska: to 1 ms)."""
    count, period = len(scan), 1 / scan.rate
    unit = _common(scan.time_base, period)
    steps = (scan.times - scan.times[0]).astype(np.float64) * float(scan.time_base * scan.rate)
    tick = float(scan.time_base * scan.rate)
    if tick > 0.15 or np.abs(steps[:-1] - np.arange(count)).max() > 1.01 * tick:
        return scan.times, scan.time_base
    start = int(scan.times[0]) * int(scan.time_base / unit)
    return start + np.arange(count + 1) * int(period / unit), unit


def _common(one: Fraction, other: Fraction) -> Fraction:
    """The longest time of which both are multiples."""
    return Fraction(
        math.gcd(one.numerator * other.denominator, other.numerator * one.denominator),
        one.denominator * other.denominator,
    )


def _replaced(duplicate: np.ndarray) -> np.ndarray:
    """Duplicates in runs of at most :data:`LONGEST_RUN`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], duplicate, [False]]).astype(np.int8)))
    replaced = duplicate.copy()
    for start, stop in edges.reshape(-1, 2):
        if stop - start > LONGEST_RUN:
            replaced[start:stop] = False
    return replaced
