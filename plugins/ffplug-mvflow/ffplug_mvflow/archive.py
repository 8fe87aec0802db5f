"""Motion vectors of a whole video in one file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ffplug.errors import DataError
from ffplug.files import atomic_path
from ffplug_mvflow.video import CodedFrame

STEPS = 8
"""Steps per pixel in which vectors are stored: all codecs' vectors are multiples of 1/8 pixel."""


class MotionArchive:
    """Gathers the vectors of a video frame by frame, and writes them without loss.

    The archive (.npz) holds ``vectors`` T×2×2×h×w int16 (frame, list, x and y; eighths of a pixel), ``valid``
    T×2×h×w bool, ``distance`` T×2×h×w int8 (signed, in frames), ``kinds`` T (``I``, ``P``, ``B``, empty for a lost
    frame), ``times`` T float64 (seconds) and ``size`` (height, width in pixels).
    """

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self._times: list[float] = []
        self._size = (0, 0)
        self._fields: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def add(self, coded: CodedFrame) -> None:
        """Append a frame."""
        if coded.field is not None:
            field = coded.field
            vectors = (field.flow * STEPS).round().short().numpy()
            self._fields[len(self.kinds)] = vectors, field.valid.numpy(), field.distance.clamp(-128, 127).char().numpy()
        if coded.problem is None:
            self._size = coded.height, coded.width
        self.kinds.append(coded.kind)
        self._times.append(coded.time)

    def coverage(self) -> float:
        """Share of the cells of the frames with vectors that have one in either list."""
        shares = [valid.any(axis=0).mean() for _, valid, _ in self._fields.values()]
        return float(np.mean(shares)) if shares else 0.0

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the archive; the file appears when it is whole."""
        if Path(path).suffix != ".npz":
            raise DataError(f"{path}: expected an archive, .npz")
        rows, columns = (-(-side // 8) for side in self._size)
        count = len(self.kinds)
        vectors = np.zeros((count, 2, 2, rows, columns), np.int16)
        valid, distance = np.zeros((count, 2, rows, columns), bool), np.zeros((count, 2, rows, columns), np.int8)
        for index, parts in self._fields.items():
            vectors[index], valid[index], distance[index] = parts
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                vectors=vectors,
                valid=valid,
                distance=distance,
                kinds=np.array(self.kinds),
                times=np.array(self._times),
                size=np.array(self._size),
            )
