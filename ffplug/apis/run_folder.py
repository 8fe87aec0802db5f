"""Finding config and weights in what a training left behind."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors

from ffplug.apis.weights import find_file
from ffplug.errors import CheckpointError, ConfigError

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")


def resolve_run(
    model: str | os.PathLike[str] | Mapping[str, Any] | None, checkpoint: str | os.PathLike[str] | None
) -> tuple[str | os.PathLike[str] | Mapping[str, Any] | None, Path | None]:
    """Return the model and the weights that the two arguments mean.

    Args:
        model: a name, config or work folder, or None for the config in the metadata of a ``.safetensors`` file, or
            beside the checkpoint.
        checkpoint: a file, a work folder, a name of released weights, or None for the weights of ``model`` where that
            is a work folder.

    Returns:
        What :func:`ffplug.build_model` takes, or None where there is nothing to tell; and a weights file, or None.

    Raises:
        ConfigError: a work folder without a config.
        CheckpointError: a work folder without weights, or a file that is not there.
    """
    if isinstance(model, str | os.PathLike) and os.path.isdir(model):
        folder = Path(model)
        model = find_config(folder)
        if model is None:
            raise ConfigError(f"{folder}: no config in this folder; expected a work folder of `ffplug train`")
        checkpoint = folder if checkpoint is None else checkpoint
    if checkpoint is None:
        return model, None
    path = Path(checkpoint)
    path = find_weights(path) if path.is_dir() else find_file(path)[0]
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    return (read_model_config(path) or find_config(path.parent)) if model is None else model, path


def read_model_config(path: Path) -> dict[str, Any] | None:
    """Return the model's config that a training keeps in the metadata of its ``.safetensors``, or None.

    Raises:
        CheckpointError: the file is truncated or no safetensors.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return json.loads((file.metadata() or {}).get("model", "null"))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} is truncated or no safetensors file: {error}") from error


def find_config(folder: Path) -> Path | None:
    """Return the config that a training wrote into its work folder, the newest one, or None."""
    files = folder.glob("*.py")
    configs = [path for path in files if re.search(r"^model\s*=", path.read_text(errors="replace"), re.MULTILINE)]
    return max(configs, key=lambda path: path.stat().st_mtime, default=None)


def find_weights(folder: Path) -> Path:
    """Return the weights of a work folder: the best by validation, or else the last.

    Raises:
        CheckpointError: there are none.
    """
    files = [path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES and path.is_file()]
    best = [path for path in files if path.name.startswith("best")]
    note = folder / "last_checkpoint"
    if not best and note.is_file():
        # The folder may have been moved since the note was written, so the name in it counts, not the path.
        named = folder / Path(note.read_text().strip()).name
        if named.is_file():
            return named
    if not files:
        raise CheckpointError(f"{folder}: no weights in this folder; expected a file *{' or *'.join(WEIGHT_SUFFIXES)}")
    return max(best or files, key=lambda path: path.stat().st_mtime)
