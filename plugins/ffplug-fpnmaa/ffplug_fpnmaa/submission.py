"""Files in the form that the ABAW challenges take: a text file a video, a line a frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ffplug_face.affect import LOGIT, THRESHOLDS

from ffplug.datasets.base import choose
from ffplug.errors import DataError
from ffplug.files import atomic_path
from ffplug_fpnmaa.datasets.affwild2 import FOLDERS
from ffplug_fpnmaa.datasets.annotations import HEADERS, UNKNOWN
from ffplug_fpnmaa.labels import LIMIT

LEADING = ("first", "unknown")


def write_submission(
    predictions: Iterable[tuple[str, Sequence[float]]],
    counts: Mapping[str, int],
    task: str,
    folder: Path,
    leading: str = "first",
    threshold: str | Sequence[float] = "probability",
) -> dict[str, int]:
    """Write one file for each video, with a line for each of its frames.

    A frame without a prediction repeats the one before it.

    Args:
        predictions: ``VIDEO/FRAME`` (from 1), and valence and arousal, the classes' or the units' probabilities.
        counts: number of frames of each video.
        task: ``va``, ``expr`` or ``au``.
        folder: ``VA_Set/VIDEO.txt`` and so on are written below it.
        leading: what frames before the first prediction get: the ``first`` one, or ``unknown`` (-5 or -1, as
            published).
        threshold: of units: ``probability``, or ``logit`` as published, or a probability for each unit.

    Returns:
        How many frames of each video had no prediction.

    Raises:
        DataError: a prediction is of no listed frame, or a video has none.
    """
    choose("leading", leading, LEADING)
    limit: Any = np.asarray(threshold)
    if isinstance(threshold, str):
        limit = {"probability": 0.5, "logit": LOGIT}[choose("threshold", threshold, THRESHOLDS)]
    lines: dict[str, dict[int, str]] = {video: {} for video in counts}
    for name, values in predictions:
        video, _, frame = name.rpartition("/")
        if video not in counts or not frame.isdigit() or not 1 <= int(frame) <= counts[video]:
            raise DataError(f"prediction of {name}: no such frame among the {len(counts)} listed videos")
        lines[video][int(frame)] = _line(task, np.asarray(values), limit)
    missing = {}
    for video, count in counts.items():
        found = lines[video]
        if not found:
            raise DataError(f"video {video}: not one prediction for its {count} frames")
        width = len(HEADERS[task]) if task != "expr" else 1
        before = found[min(found)] if leading == "first" else ",".join([str(UNKNOWN[task])] * width)
        rows = []
        for frame in range(1, count + 1):
            before = found.get(frame, before)
            rows.append(before)
        with atomic_path(folder / FOLDERS[task] / f"{video}.txt") as path:
            path.write_text("\n".join([",".join(HEADERS[task]), *rows]) + "\n", encoding="utf-8")
        missing[video] = count - len(found)
    return missing


def _line(task: str, values: np.ndarray, limit: Any) -> str:
    expected = 7 if task == "expr" else len(HEADERS[task])
    if len(values) != expected:
        raise DataError(f"{len(values)} numbers for the task {task}, a submission to ABAW2 has {expected}")
    if task == "va":
        return ",".join(f"{value:.4f}" for value in values.clip(-LIMIT, LIMIT))
    if task == "expr":
        return str(int(values.argmax()))
    return ",".join(str(int(there)) for there in values > limit)
