"""Which face is where in a video: by a detector, by a list of boxes, or the whole frame."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ffplug.errors import ConfigError, DataError
from ffplug_fpnmaa.datasets.annotations import number, read_csv

Finder = Callable[[int, np.ndarray], "list[FoundFace]"]
"""Gives the faces of a frame: its number from 0, and the picture H×W×3 uint8."""

_HEAD = np.array([[-0.31, -0.30, 0.25], [0.31, -0.30, 0.25], [0, 0, 0], [-0.22, 0.33, 0.2], [0.22, 0.33, 0.2]])
"""Eyes, tip of the nose, corners of the mouth of a common head, x right, y down, z away, in any unit."""


@dataclasses.dataclass(frozen=True, eq=False)
class FoundFace:
    """A face in a frame.

    Attributes:
        face: its number, from 0.
        box: left, top, width, height in pixels.
        score: of the detector, 0..1; NaN where there is none.
        pose: pitch, yaw and roll of the head in degrees, of five points: rough; NaN where there are none.
    """

    face: int
    box: tuple[float, float, float, float]
    score: float = float("nan")
    pose: tuple[float, float, float] = (float("nan"),) * 3


def whole_frame(index: int, image: np.ndarray) -> list[FoundFace]:
    """The frame itself as one face."""
    return [FoundFace(0, (0.0, 0.0, float(image.shape[1]), float(image.shape[0])))]


class DetectedFaces:
    """The largest faces that a detector finds in each frame, with numbers that stay over time.

    A face has the number of the one whose box it overlaps most, among those seen in the last frames; without any, a new
    one. Numbers go by overlap alone: a face that leaves and comes back later, or elsewhere, is a new one.

    Args:
        detector: see :class:`ffplug_face.crops.FaceDetector`.
        count: how many faces of a frame to tell, the largest first; 0 tells all.
        overlap: least intersection over union of two boxes of one face.
        patience: frames for which a face that is not seen keeps its number.
    """

    def __init__(self, detector: Any, count: int = 1, overlap: float = 0.3, patience: int = 15) -> None:
        if count < 0 or not 0 < overlap <= 1 or patience < 0:
            raise ConfigError(f"count={count}, overlap={overlap}, patience={patience}: expected >= 0, 0..1, and >= 0")
        self.detector, self.count, self.overlap, self.patience = detector, count, overlap, patience
        self._seen: dict[int, tuple[int, tuple[float, float, float, float]]] = {}  # by number: last frame and box
        self._next = 0

    def __call__(self, index: int, image: np.ndarray) -> list[FoundFace]:
        """See :data:`Finder`; frames come in their order."""
        faces = self.detector(image)
        self._seen = {n: seen for n, seen in self._seen.items() if index - seen[0] <= self.patience + 1}
        pairs = [
            (overlap_of(box, face.box), known, place)
            for place, face in enumerate(faces)
            for known, (_, box) in self._seen.items()
        ]
        numbers: dict[int, int] = {}
        for overlap, known, place in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:])):
            if overlap >= self.overlap and place not in numbers and known not in numbers.values():
                numbers[place] = known
        found = []
        for place, face in enumerate(faces):
            if place not in numbers:
                numbers[place] = self._next
                self._next += 1
            self._seen[numbers[place]] = index, face.box
            if not self.count or place < self.count:
                pose = head_pose(face.points, image.shape[:2])
                found.append(FoundFace(numbers[place], face.box, face.score, pose))
        return found


def overlap_of(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, width, height)."""
    sides = [
        max(0.0, min(one[axis] + one[axis + 2], other[axis] + other[axis + 2]) - max(one[axis], other[axis]))
        for axis in (0, 1)
    ]
    shared = sides[0] * sides[1]
    total = one[2] * one[3] + other[2] * other[3] - shared
    return shared / total if total > 0 else 0.0


class ListedFaces:
    """Faces from a CSV file with ``frame`` (from 0), ``left``, ``top``, ``width``, ``height``, and perhaps ``face``.

    py-feat's ``FaceRectX``, ``FaceRectY``, ``FaceRectWidth``, ``FaceRectHeight`` and ``Identity`` are taken as well.

    Args:
        path: the file.

    Raises:
        DataError: a column is missing, or a line is wrong.
    """

    def __init__(self, path: str) -> None:
        names = ("left", "top", "width", "height")
        other = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight")
        self.faces: dict[int, list[FoundFace]] = {}
        columns: tuple[str, ...] | None = None
        for line, row in read_csv(path, ["frame"]):
            if columns is None:
                columns = next((group for group in (names, other) if all(name in row for name in group)), None)
                if columns is None:
                    raise DataError(f"{path}, line 1: no columns {', '.join(names)} (or {', '.join(other)})")
            if not all(row[name].strip() for name in columns):
                continue  # a frame without a face
            box = tuple(number(path, line, row, name) for name in columns)
            if min(box[2:]) <= 0:
                raise DataError(f"{path}, line {line}: a face box of {box[2]:g}×{box[3]:g} pixels")
            frame = number(path, line, row, "frame", int)
            there = self.faces.setdefault(frame, [])
            face = self._number(path, line, row, len(there))
            if any(known.face == face for known in there):
                raise DataError(f"{path}, line {line}: face {face} of frame {frame} is listed twice")
            there.append(FoundFace(face, box))
        if not self.faces:
            raise DataError(f"{path}: lists no face")

    @staticmethod
    def _number(path: str, line: int, row: Mapping[str, str], place: int) -> int:
        if row.get("face", "").strip():
            return number(path, line, row, "face", int)
        person = re.fullmatch(r"Person_(\d+)", row.get("Identity", "").strip())
        return int(person[1]) if person else place

    def __call__(self, index: int, image: np.ndarray) -> list[FoundFace]:
        """See :data:`Finder`."""
        return self.faces.get(index, [])


def head_pose(points: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float]:
    """A rough turn of the head from five points, as if all heads were alike and the camera as wide as the picture.

    Args:
        points: 5×2 pixels: the subject's right and left eye, tip of the nose, right and left corner of the mouth.
        size: height and width of the picture.

    Returns:
        Pitch (up), yaw (to the picture's right) and roll (clockwise in the picture), degrees; NaN where it can't be
        told.
    """
    height, width = size
    camera = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], np.float64)
    try:
        good, turn, _ = cv2.solvePnP(_HEAD, np.asarray(points, np.float64), camera, None, flags=cv2.SOLVEPNP_EPNP)
    except cv2.error:
        good = False
    if not good or not np.isfinite(turn).all():
        return (float("nan"),) * 3
    matrix = cv2.Rodrigues(turn)[0]
    forward = -matrix[:, 2]  # where the nose points
    pitch = np.degrees(np.arctan2(-forward[1], np.hypot(forward[0], forward[2])))
    yaw = np.degrees(np.arctan2(forward[0], -forward[2]))
    roll = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return float(pitch), float(yaw), float(roll)


def describe(finder: Finder) -> str:
    """What a finder does, for whoever reads the table."""
    if isinstance(finder, DetectedFaces):
        which = {0: "all faces", 1: "the largest face"}.get(finder.count, f"the {finder.count} largest faces")
        return f"{which} that YuNet finds"
    return "the listed boxes" if isinstance(finder, ListedFaces) else "each whole frame as one face"
