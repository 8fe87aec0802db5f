"""What the faces of a video show, frame by frame: tables, curves and an annotated video."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ffplug.errors import ConfigError, DataError
from ffplug.files import atomic_path
from ffplug_fpnmaa.datasets.transforms import crop_face, resize
from ffplug_fpnmaa.labels import class_names
from ffplug_fpnmaa.tracking import Finder, FoundFace

FORMS = ("py-feat", "openface")


@dataclasses.dataclass(eq=False)
class AffectTable:
    """What N faces show, in the order of their frames.

    Attributes:
        frame: N, from 0.
        faces: where each is.
        values: by task: ``va`` N×2, ``expr`` N×K probabilities, ``au`` N×U probabilities.
        units: numbers of the action units.
        frames: number of frames of the video, those without a face included.
        rate: frames a second.
        thresholds: of each unit: the probability above which it is there.
    """

    frame: np.ndarray
    faces: list[FoundFace]
    values: dict[str, np.ndarray]
    units: tuple[int, ...]
    frames: int
    rate: float
    thresholds: tuple[float, ...]

    @property
    def time(self) -> np.ndarray:
        """Seconds of each face."""
        return self.frame / self.rate

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def expressions(self) -> tuple[str, ...]:
        """Names of the classes."""
        return class_names(self.values["expr"].shape[1]) if "expr" in self.values else ()

    def smoothed(self, seconds: float) -> AffectTable:
        """The table with all values smoothed over time, each face by itself.

        A Gaussian of this deviation in seconds; frames without the face leave no trace.
        """
        if seconds < 0:
            raise ConfigError(f"smooth={seconds}: expected 0 or more seconds")
        if not seconds or not len(self):
            return self
        numbers = np.array([face.face for face in self.faces])
        values = {task: value.copy() for task, value in self.values.items()}
        for number in np.unique(numbers):
            (rows,) = (numbers == number).nonzero()
            times = self.time[rows]
            first = np.searchsorted(times, times - 4 * seconds)
            last = np.searchsorted(times, times + 4 * seconds, side="right")
            for row, start, end in zip(rows, first, last, strict=True):
                weights = np.exp(-0.5 * ((times[start:end] - self.time[row]) / seconds) ** 2)
                for task, value in self.values.items():
                    values[task][row] = weights @ value[rows[start:end]] / weights.sum()
        return dataclasses.replace(self, values=values)

    def rows(self, form: str = "py-feat") -> Iterator[dict[str, Any]]:
        """Yield a dict for each face, with the column names of a known program; one of NaN for a frame without a face.

        Args:
            form: ``py-feat``: ``frame`` from 0, ``approx_time`` (seconds), ``Identity`` (``Person_0`` ...),
                ``FaceRectX`` ..., ``FaceScore``, ``Pitch``, ``Roll``, ``Yaw`` (degrees), ``AU01`` ... (probabilities),
                the expressions (probabilities), and what it does not have: ``expression``, the likeliest.
                ``openface``: ``frame`` from 1, ``face_id``, ``timestamp``, ``confidence``, ``success``, ``pose_Rx`` ...
                (radians; down, to the picture's left and clockwise are positive), ``AU01_c`` ... (0 or 1), and what it
                does not have: ``AU01_p`` ... (probabilities), the expressions, ``expression``. It has no intensities
                (``AU01_r``): the network tells whether a unit is there, not how strongly. Both have ``valence`` and
                ``arousal``.
        """
        if form not in FORMS:
            raise ConfigError(f"columns={form!r}: expected one of {', '.join(FORMS)}")
        row = self._pyfeat_row if form == "py-feat" else self._openface_row
        of_frame: dict[int, list[int]] = {}
        for index, frame in enumerate(self.frame):
            of_frame.setdefault(int(frame), []).append(index)
        for frame in range(self.frames):
            for index in of_frame.get(frame, [None]):
                yield row(frame, index)

    def _pyfeat_row(self, frame: int, index: int | None) -> dict[str, Any]:
        face = _NOBODY if index is None else self.faces[index]
        boxes = ("FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight")
        pitch, yaw, roll = face.pose
        return {
            "frame": frame,
            "approx_time": frame / self.rate,
            "Identity": "" if index is None else f"Person_{face.face}",
            **dict(zip(boxes, face.box, strict=True)),
            "FaceScore": face.score,
            "Pitch": pitch,
            "Roll": roll,
            "Yaw": yaw,
            **{f"AU{unit:02d}": value for unit, value in self._units(index)},
            **self._shown_by(index),
        }

    def _openface_row(self, frame: int, index: int | None) -> dict[str, Any]:
        face = _NOBODY if index is None else self.faces[index]
        pitch, yaw, roll = (math.radians(angle) for angle in face.pose)
        units = self._units(index)
        there = {
            f"AU{unit:02d}_c": value if index is None else int(value > limit)
            for (unit, value), limit in zip(units, self.thresholds if units else (), strict=True)
        }
        return {
            "frame": frame + 1,
            "face_id": 0 if index is None else face.face,
            "timestamp": frame / self.rate,
            "confidence": 0 if index is None else face.score,
            "success": int(index is not None),
            # OpenFace turns about x, y and z one after the other.
            "pose_Rx": math.atan2(-math.sin(pitch), math.cos(pitch) * math.cos(yaw)),
            "pose_Ry": math.asin(-math.cos(pitch) * math.sin(yaw)),
            "pose_Rz": roll,
            **there,
            **{f"AU{unit:02d}_p": value for unit, value in units},
            **self._shown_by(index),
        }

    def _units(self, index: int | None) -> list[tuple[int, float]]:
        if "au" not in self.values:
            return []
        values = [math.nan] * len(self.units) if index is None else self.values["au"][index]
        return list(zip(self.units, values, strict=True))

    def _shown_by(self, index: int | None) -> dict[str, Any]:
        """The columns of expressions, valence and arousal."""
        found: dict[str, Any] = {}
        if self.expressions:
            values = [math.nan] * len(self.expressions) if index is None else self.values["expr"][index]
            found |= dict(zip(self.expressions, values, strict=True))
            found["expression"] = "" if index is None else max(found, key=found.get)
        if "va" in self.values:
            values = [math.nan] * 2 if index is None else self.values["va"][index]
            found |= dict(zip(("valence", "arousal"), values, strict=True))
        return found

    def write_csv(self, path: str | Path, form: str = "py-feat") -> None:
        """Write the table, see :meth:`rows`; what is not known is empty."""
        if not len(self):
            raise DataError(f"{path}: no face in any of {self.frames} frames, so there is nothing to write")
        rows = [{name: _shown(value) for name, value in row.items()} for row in self.rows(form)]
        with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


_NOBODY = FoundFace(-1, (math.nan,) * 4)
"""What a frame without a face has in a table."""


def _shown(value: Any) -> Any:
    if isinstance(value, (float, np.floating)):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def analyse_video(
    model: Any,
    video: Any,
    finder: Finder,
    size: int = 128,
    batch_size: int = 32,
    flip: bool = False,
    margin: float = 0.0,
    thresholds: tuple[float, ...] | None = None,
) -> AffectTable:
    """Look at every face of a video.

    Args:
        model: an :class:`~ffplug_fpnmaa.models.AffectFPN`.
        video: frames H×W×3 uint8 RGB with ``rate`` (:class:`ffplug.apis.video.VideoFrames`).
        finder: tells the faces of a frame, see :mod:`ffplug_fpnmaa.tracking`.
        size: side of the pictures that the network sees.
        batch_size: faces at a time.
        flip: mean with the mirrored faces.
        margin: share of a box's sides that is added all round.
        thresholds: of each action unit; None takes the model's.
    """
    crops: list[np.ndarray] = []
    frames: list[int] = []
    faces: list[FoundFace] = []
    parts: list[dict[str, np.ndarray]] = []

    def flush() -> None:
        if crops:
            pictures = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
            with torch.inference_mode():
                told = model.analyse(pictures, flip)
            parts.append({task: value.cpu().numpy() for task, value in told.items()})
            crops.clear()

    count = 0
    for index, image in enumerate(video):
        count += 1
        for face in finder(index, image):
            crops.append(resize(crop_face(image, face.box, margin, name=f"frame {index}"), (size, size)))
            frames.append(index)
            faces.append(face)
            if len(crops) == batch_size:
                flush()
    flush()
    values = {task: np.concatenate([part[task] for part in parts]) for task in model.tasks} if parts else {}
    frame = np.array(frames, np.int64)
    return AffectTable(
        frame, faces, values, model.head.units, count, float(video.rate), thresholds or model.head.thresholds
    )


def plot_table(table: AffectTable, path: str | Path, title: str = "") -> None:
    """Draw the first face's curves: valence and arousal, expressions, action units.

    Args:
        table: what to draw.
        path: the picture; its suffix (.png, .pdf, .svg) says which kind.
        title: above it.
    """
    from matplotlib.figure import Figure

    if not len(table):
        raise DataError(f"{path}: no face in any of {table.frames} frames, so there is nothing to draw")
    first = min(face.face for face in table.faces)
    rows = np.array([face.face == first for face in table.faces])
    time = table.time[rows]
    heights = {"va": 2, "expr": 2, "au": 2.6}
    tasks = [task for task in heights if task in table.values]
    figure = Figure(figsize=(10, 0.8 + sum(heights[task] for task in tasks)), layout="constrained")
    axes = figure.subplots(len(tasks), 1, sharex=True, squeeze=False, height_ratios=[heights[task] for task in tasks])
    for axis, task in zip(axes[:, 0], tasks, strict=True):
        values = table.values[task][rows]
        if task == "va":
            for column, name in enumerate(("valence", "arousal")):
                axis.plot(time, values[:, column], label=name)
            axis.axhline(0, color="0.8", zorder=0)
            axis.set_ylim(-1, 1)
            axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        elif task == "expr":
            axis.stackplot(time, values.T, labels=table.expressions)
            axis.set_ylim(0, 1)
            axis.set_ylabel("probability")
            axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small")
        else:
            extent = (time[0], max(time[-1], time[0] + 1e-3), len(table.units) - 0.5, -0.5)
            axis.imshow(values.T, aspect="auto", vmin=0, vmax=1, cmap="magma", extent=extent, interpolation="nearest")
            axis.set_yticks(range(len(table.units)), [f"AU{unit}" for unit in table.units], fontsize="small")
    axes[-1, 0].set_xlabel("seconds")
    if title:
        figure.suptitle(title, fontsize="medium")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix.lstrip(".") or "png", dpi=100)


def annotate(image: np.ndarray, table: AffectTable, rows: Sequence[int]) -> np.ndarray:
    """A frame with boxes, and what its faces show written beside them.

    Args:
        image: H×W×3 uint8 RGB.
        table: the whole table.
        rows: places of this frame's faces in it.
    """
    picture = np.ascontiguousarray(image).copy()
    scale = max(0.35, min(picture.shape[:2]) / 720)
    thin, thick = max(1, round(scale)), max(2, round(3 * scale))
    for row in rows:
        left, top, width, height = (round(value) for value in table.faces[row].box)
        cv2.rectangle(picture, (left, top), (left + width - 1, top + height - 1), (80, 220, 120), thick)
        for line, text in enumerate(_lines(table, row), start=1):
            at = (max(0, left) + 4, max(0, top) + round(26 * scale * line))
            for colour, stroke in (((0, 0, 0), thick), ((255, 255, 255), thin)):
                cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * scale, colour, stroke, cv2.LINE_AA)
    return picture


def _lines(table: AffectTable, row: int) -> list[str]:
    lines = []
    if "expr" in table.values:
        odds = table.values["expr"][row]
        lines.append(f"{table.expressions[int(odds.argmax())]} {odds.max():.2f}")
    if "va" in table.values:
        lines.append("V {:+.2f}  A {:+.2f}".format(*table.values["va"][row]))
    if "au" in table.values:
        values = zip(table.units, table.values["au"][row], table.thresholds, strict=True)
        there = [unit for unit, value, limit in values if value > limit]
        lines.append("AU " + (" ".join(map(str, there)) or "-"))
    return lines
