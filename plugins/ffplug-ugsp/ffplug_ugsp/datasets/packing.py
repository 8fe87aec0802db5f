"""Triplets packed for quick reading: one array for the three pictures, which nothing has to decompress."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

import numpy as np
from mmengine import fileio

from ffplug.errors import DataError
from ffplug.files import atomic_path

SUFFIX = ".npy"


def write_packed(path: str | os.PathLike, frames: Sequence[np.ndarray]) -> None:
    """Write the frames of a triplet, each H×W×3 uint8 RGB; the file appears whole."""
    with atomic_path(path, sync=False) as temporary, open(temporary, "wb") as file:
        np.save(file, np.stack(frames))


def read_packed(path: str | os.PathLike) -> np.ndarray:
    """Read what :func:`write_packed` wrote, 3×H×W×3 uint8.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    again = "delete it, and run `ffplug pack-triplets` again"
    try:
        frames = np.load(io.BytesIO(fileio.get(os.fspath(path))), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: no packed triplet ({error}); {again}") from None
    whole = isinstance(frames, np.ndarray) and frames.dtype == np.uint8 and frames.ndim == 4
    if not whole or frames.shape[::3] != (3, 3):
        raise DataError(f"{path}: expected a packed triplet, 3×H×W×3 of uint8; {again}")
    return frames
