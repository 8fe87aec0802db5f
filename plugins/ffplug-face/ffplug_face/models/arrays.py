"""Reading the files that hold a head: NumPy archives, and FLAME's pickles without running any of their code."""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
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


class _DType:
    """The description of a ``numpy.dtype``."""

    def __init__(self, text: Any = "", *_: Any) -> None:
        self.text, self.order = str(text), "="

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1])

    def known(self) -> np.dtype | None:
        """The type, if it is one of numbers."""
        text = self.text.lstrip("<>|=")
        kind = np.dtype(text) if re.fullmatch(r"[fiu][1248]|b1", text) else None
        return kind.newbyteorder(">") if kind and ">" in self.order + self.text else kind


class _Array:
    """The description of a ``numpy.ndarray``, from which one is made when its bytes are known to fit.

    NumPy's own way trusts what the file says, and a damaged file makes it crash.
    """

    def __init__(self, shape: Any = (), dtype: Any = None, order: bool = False, content: Any = b"") -> None:
        self.parts = shape, dtype, order, content

    def __setstate__(self, state: Any) -> None:
        self.parts = tuple(state)[1:]

    def array(self) -> np.ndarray | None:
        """The array, or None if it is not one of numbers."""
        shape, dtype, order, content = self.parts
        kind = dtype.known() if isinstance(dtype, _DType) else None
        if kind is None:
            return None
        # Python 2's bytes come as text.
        content = content.encode("latin1") if isinstance(content, str) else bytes(content)
        if math.prod(shape) * kind.itemsize != len(content) or any(size < 0 for size in shape):
            raise _Refused(f"an array of {shape} numbers in it has {len(content)} bytes")
        return np.frombuffer(content, kind).reshape(shape, order="F" if order else "C").astype(kind.newbyteorder("="))


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


class _Function:
    """A function that a pickle may call and nothing else: unlike a plain one it takes no attributes."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "call", call)

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused(f"it sets {name!r} of a function")


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Function(lambda *_: _Array()),
    ("numpy.core.multiarray", "scalar"): _Function(lambda dtype, content: _Array((), dtype, False, content)),
    ("numpy.core.numeric", "_frombuffer"): _Function(
        lambda content, dtype, shape, order: _Array(shape, dtype, order == "F", content)
    ),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _Function(_encode),
    ("copy_reg", "_reconstructor"): _Function(_reconstructor),
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "object"): object,
    ("builtins", "set"): set,
    ("builtins", "bytes"): _Function(lambda: b""),  # old protocols have no other way to write none
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
        content = Path(path).read_bytes()
        _check_memo(content)
        return _dense(_ArrayUnpickler(io.BytesIO(content), encoding="latin1").load())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file") from error
    except _Refused as error:
        raise DataError(f"{path} is refused: {error}; expected a pickle of arrays, such as FLAME's") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise DataError(f"{path} is damaged or no pickle: {error!r}; get it again from where it came") from error


def _check_memo(content: bytes) -> None:
    """Refuse a pickle that numbers its objects past its own length: the table of them would fill the memory."""
    for code, argument, _ in pickletools.genops(content):
        if code.name.endswith("PUT") and int(argument) > len(content):
            raise _Refused(f"it numbers an object {argument}, of which it can't hold as many")


_MOST = 1 << 24  # numbers in a sparse matrix written out


def _dense(value: Any) -> Any:
    """The stand-ins of a file's content, or of a dict's values, as arrays."""
    return {key: _number(item) for key, item in value.items()} if isinstance(value, dict) else _number(value)


def _number(value: Any) -> Any:
    """A stand-in as an array: chumpy keeps one under ``x``, SciPy's compressed columns or rows in three."""
    if isinstance(value, _Array):
        array = value.array()
        return value if array is None else array
    if not isinstance(value, _State):
        return value
    state = value.state
    if "x" in state:
        return np.asarray(_number(state["x"]))
    if {"data", "indices", "indptr"} <= set(state):
        rows, columns = (int(size) for size in map(_number, state.get("_shape", state.get("shape"))))
        data, indices, starts = (np.asarray(_number(state[key])).ravel() for key in ("data", "indices", "indptr"))
        if len(starts) not in (columns + 1, rows + 1):
            raise _Refused(f"a sparse matrix of {rows}×{columns} has {len(starts) - 1} columns")
        if not 0 <= rows * columns <= _MOST:
            raise _Refused(f"a sparse matrix of {rows}×{columns} is larger than any head's")
        by_column = len(starts) == columns + 1
        within = rows if by_column else columns
        if indices.size and not 0 <= indices.min() <= indices.max() < within:
            raise _Refused(f"a sparse matrix of {rows}×{columns} names {indices.min()}..{indices.max()} of {within}")
        steps = np.diff(starts.astype(np.int64))
        if len(data) != len(indices) or starts[0] != 0 or starts[-1] != len(indices) or (steps < 0).any():
            raise _Refused(f"a sparse matrix of {rows}×{columns} does not say where its {len(data)} numbers lie")
        outer = np.repeat(np.arange(len(steps)), steps)
        dense = np.zeros((rows, columns))
        np.add.at(dense, (indices, outer) if by_column else (outer, indices), data)
        return dense
    raise _Refused(f"an object in it that holds {', '.join(map(str, state)) or 'nothing'} is no array")
