"""Tensors of a TorchScript archive, read without running what is in it."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffplug.errors import CheckpointError

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Object:
    """A scripted module or any other object of the archive: its attributes and nothing else."""

    def __init__(self, *_: Any) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _first(value: Any, *_: Any) -> Any:
    return value


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, tuple(size), tuple(stride), offset).clone()


class _TensorUnpickler(pickle.Unpickler):
    """Knows tensors, lists and stubs of objects; every other name is refused."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(archive.open(f"{folder}/data.pkl"))
        self.archive = archive
        self.folder = folder

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return type("_Stub", (_Object,), {})
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")):
            return _tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter") or module == "torch.jit._pickle":
            return _first
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"holds {module}.{name}, which could run code")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        data = self.archive.read(f"{self.folder}/data/{key}")
        return torch.frombuffer(bytearray(data), dtype=dtype, count=count) if count else torch.empty(0, dtype=dtype)


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_torchscript(path: str | Path) -> dict[str, Tensor]:
    """Read the parameters and buffers of a scripted module by their names; no code of the archive is run.

    Args:
        path: an archive as ``torch.jit.save`` writes it.

    Raises:
        CheckpointError: the archive is damaged, or holds something else than modules, tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            folder = next(name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
            root = _TensorUnpickler(archive, folder.removesuffix("/data.pkl")).load()
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"checkpoint {path} {error}, and is refused") from None
    except (
        zipfile.BadZipFile,
        StopIteration,
        EOFError,
        OSError,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise CheckpointError(f"checkpoint {path} is a damaged TorchScript archive: {error}") from None
    tensors: dict[str, Tensor] = {}
    _collect(root, "", tensors)
    return tensors


def _collect(value: Any, name: str, tensors: dict[str, Tensor]) -> None:
    for key, item in value.attributes.items() if isinstance(value, _Object) else ():
        where = f"{name}.{key}" if name else str(key)
        if isinstance(item, Tensor):
            tensors[where] = item
        else:
            _collect(item, where, tensors)
