"""Reading weights without running a stranger's code, and writing them so that a reader never sees half a file."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ffplug.errors import CheckpointError

CONTAINERS = ("state_dict", "model_state_dict", "model", "params", "ema")
"""Keys under which training frameworks keep a model's tensors."""


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file or of a PyTorch checkpoint, on the CPU.

    Args:
        path: file of weights, or training checkpoint; what frameworks wrap round the tensors is taken off.

    Raises:
        CheckpointError: the file is missing, empty, truncated, holds something else than tensors and plain values
            (which could run code), or no tensors at all.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if path.stat().st_size == 0:
        raise CheckpointError(f"checkpoint {path} is empty (0 bytes): download or copy it again")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_explain_unpickling(path, error)) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, safetensors.SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"checkpoint {path} is truncated or no checkpoint: {reason}") from error
    state = _unwrap(content)
    if not state:
        raise CheckpointError(f"checkpoint {path} holds no tensors by name")
    return state


def _explain_unpickling(path: Path, error: Exception) -> str:
    text = str(error)
    marker = "Unsupported global: GLOBAL "
    if marker in text:
        name = text.split(marker, 1)[1].split()[0]
        return (
            f"checkpoint {path} holds {name}, which could run code, and is refused; "
            "ask its author for a safetensors file, or convert it in a sandbox with "
            "torch.save(torch.load(..., weights_only=False)['state_dict'], ...)"
        )
    return f"checkpoint {path} is damaged, or holds objects that could run code, and is refused: {text.splitlines()[0]}"


def _unwrap(content: object) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        content = inner
    return {}


def save_weights(
    path: str | os.PathLike, state_dict: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write tensors as safetensors; the file appears at once and whole.

    Args:
        path: target, ending in ``.safetensors``; its folder is made.
        state_dict: tensors by name; shared and non-contiguous ones are copied.
        metadata: strings to keep with them.

    Raises:
        CheckpointError: another suffix.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: released weights are written as .safetensors, not {path.suffix or 'without suffix'}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state_dict.items()}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        safetensors.torch.save_file(tensors, temporary, metadata=dict(metadata or {}))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
