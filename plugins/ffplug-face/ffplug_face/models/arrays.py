"""Reading the files that hold a head: NumPy archives, and FLAME's pickles without running any of their code."""

from __future__ import annotations

import collections
import os
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ffplug.errors import CheckpointError, DataError


def read_npz(path: str | os.PathLike, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays ``keys`` of a NumPy archive; pickled objects in it are refused.

    Raises:
        CheckpointError: there is no such file.
        DataError: it is damaged, or lacks a key.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in keys if key not in archive]
            if missing:
                found = ", ".join(archive.files) or "nothing"
                raise DataError(f"{path} lacks {', '.join(missing)}: expected a head with these keys; it holds {found}")
            return {key: archive[key] for key in keys}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; expected a head model's .npz") from error
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no readable .npz: {error}") from error


class _Refused(Exception):
    """What a pickle asks for is not part of any array."""


class _State:
    """What a pickle holds of a class that is not imported: its state alone."""

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.state[key] = value


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """``_codecs.encode`` as NumPy's pickles use it: raw bytes that were written as text."""
    if encoding not in ("latin1", "latin-1", "iso-8859-1"):
        raise _Refused(f"it encodes text as {encoding}")
    return text.encode("latin1")


def _reconstructor(cls: type, base: type, state: Any) -> _State:
    """``copy_reg._reconstructor`` for the stand-ins alone."""
    if cls is not _State:
        raise _Refused(f"it makes an object of {cls!r}")
    return _State()


_numpy = np._core if hasattr(np, "_core") else np.core  # its name in NumPy 2 and before

_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _numpy.multiarray._reconstruct,
    ("numpy.core.multiarray", "scalar"): _numpy.multiarray.scalar,
    ("numpy.core.numeric", "_frombuffer"): _numpy.numeric._frombuffer,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("copy_reg", "_reconstructor"): _reconstructor,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "object"): object,
    ("builtins", "set"): set,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits arrays, and of chumpy's and SciPy's objects their state; everything else is refused unseen."""

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copyreg": "copy_reg"}.get(module, module)
        module = module.replace("numpy._core", "numpy.core")
        if module.split(".")[0] in ("chumpy", "scipy"):
            return _State
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"it names {module}.{name}, which no array needs and which might run code") from None


def read_pickle(path: str | os.PathLike) -> Any:
    """A pickle of arrays, as FLAME's files are (Python 2's too, with chumpy's arrays and SciPy's sparse matrices).

    None of the classes that it names are imported, and no code of the file runs.

    Raises:
        CheckpointError: there is no such file.
        DataError: it is damaged, or holds something else than arrays.
    """
    try:
        with Path(path).open("rb") as file:
            return _dense(_ArrayUnpickler(file, encoding="latin1").load())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except _Refused as error:
        raise DataError(f"{path} is refused: {error}; expected a pickle of arrays, such as FLAME's") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"{path} is damaged or no pickle: {error!r}; get it again from where it came") from error


def _dense(value: Any) -> Any:
    """Stand-ins as arrays: chumpy keeps one under ``x``, SciPy's compressed columns or rows in three."""
    if isinstance(value, dict):
        return {key: _dense(item) for key, item in value.items()}
    if not isinstance(value, _State):
        return value
    state = value.state
    if "x" in state:
        return np.asarray(_dense(state["x"]))
    if {"data", "indices", "indptr"} <= set(state):
        rows, columns = state.get("_shape", state.get("shape"))
        data, indices, starts = (np.asarray(state[key]) for key in ("data", "indices", "indptr"))
        if len(starts) not in (columns + 1, rows + 1):
            raise _Refused(f"a sparse matrix of {rows}×{columns} has {len(starts) - 1} columns")
        by_column = len(starts) == columns + 1
        outer = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        dense = np.zeros((rows, columns))
        np.add.at(dense, (indices, outer) if by_column else (outer, indices), data)
        return dense
    raise _Refused(f"an object in it that holds {', '.join(map(str, state)) or 'nothing'} is no array")
