"""Building a model by name or config, with or without weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from torch import nn

from ffplug.errors import CheckpointError, ConfigError, did_you_mean


def build_model(
    name_or_config: str | os.PathLike | Mapping[str, Any], checkpoint: str | os.PathLike | None = None
) -> nn.Module:
    """Build a model of the core or of any installed plugin.

    Args:
        name_or_config: a model's name (``raft_large``; ``ffplug list --models`` shows them), a recipe's name, the path
            of a config file, a loaded config, or the ``model`` dict itself.
        checkpoint: weights to load: a file of FFPlug (``.safetensors``, or a training checkpoint) or of a public
            implementation that a converter knows, or a name of released weights that are on this machine
            (``ffplug weights list``). None leaves the weights as initialised.

    Returns:
        The model in evaluation mode, on the default device.

    Raises:
        ConfigError: unknown name or wrong config.
        CheckpointError: the weights are unreadable, unsafe or of another model.
    """
    from ffplug.config import load_config, validate_config
    from ffplug.registry import MODELS

    by_name = isinstance(name_or_config, str | os.PathLike)
    config: Mapping[str, Any] = load_config(name_or_config) if by_name else name_or_config
    if "model" in config:
        config = config["model"]
    if "type" not in config:
        raise ConfigError(f"{name_or_config!s}: expected a config with `model`, or a model dict with `type`")
    # Building pops keys, so it gets a copy.
    config = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    validate_config(Config({"model": config}))
    model = MODELS.build(ConfigDict(config))
    if checkpoint is not None:
        load_weights(model, checkpoint)
    return model.eval()


def get_model(name: str, pretrained: bool | str | os.PathLike | None = None) -> nn.Module:
    """Build a model by its name, with published weights where they are wanted.

    Nothing is downloaded: weights are those in the folder of weights (FFPLUG_WEIGHTS, else ``weights``), where
    ``ffplug weights pull`` puts them. They are checked by size and SHA-256, and their keys converted.

    Args:
        name: of a model, as :func:`ffplug.list_models` gives it (``-`` and ``_`` alike).
        pretrained: True for the model's default weights, a name of weights (``ffplug weights list``), or the path of a
            file. None leaves the weights as initialised.

    Returns:
        The model in evaluation mode, on the default device.

    Raises:
        ConfigError: no such model or weights; the message lists near names.
        CheckpointError: the weights are not on this machine, damaged, unsafe or of another model.
    """
    from ffplug.apis.weights import find_pretrained
    from ffplug.plugin import list_models

    wanted = name.replace("-", "_")
    if wanted not in list_models():
        part = list_models(f"*{wanted}*")
        near = f"; there are {', '.join(part)}" if part else did_you_mean(wanted, list_models())
        raise ConfigError(f"no model {name!r}{near}; `ffplug list --models` shows all")
    if pretrained is None or pretrained is False:
        return build_model(wanted)
    path, source = find_pretrained(wanted, pretrained)
    model = build_model(wanted)
    load_weights(model, path, source)
    return model


def load_weights(model: nn.Module, path: str | os.PathLike, source: str | None = None) -> None:
    """Load weights from a file into ``model``, strictly.

    Frozen parts that checkpoints leave out keep what they have. A file with the keys of a public implementation is
    converted by the first converter that takes it and whose result fits, or by that of ``source`` if it is given.
    ``path`` may be a name of released weights, too.

    Raises:
        CheckpointError: the file is unreadable or unsafe, or does not fit; the message says how far off it is.
    """
    from ffplug.apis.checkpoints import read_state_dict
    from ffplug.apis.converters import convert_state_dict, read_public
    from ffplug.apis.weights import find_file

    path, converter = find_file(path)
    source = source or converter
    state = read_state_dict(path) if source is None else convert_state_dict(read_public(path, source), source)
    mismatch = _mismatch(model, state)
    if mismatch and source is None:
        converted = _convert_any(state, model)
        if converted is None:
            raise CheckpointError(f"{path}: not weights of this model: {mismatch}")
        state = converted
    elif mismatch:
        raise CheckpointError(f"{path}: converted from {source!r}, but for another model: {mismatch}")
    model.load_state_dict(state, strict=False)


def _mismatch(model: nn.Module, state: Mapping[str, Any]) -> str:
    expected = model.state_dict()
    excluded = model.checkpoint_exclude_prefixes() if hasattr(model, "checkpoint_exclude_prefixes") else ()
    missing = [
        key
        for key in expected
        if key not in state and not key.startswith(excluded or "\0") and not key.endswith("num_batches_tracked")
    ]
    unexpected = [key for key in state if key not in expected]
    shaped = [key for key in state if key in expected and state[key].shape != expected[key].shape]
    named = {"missing": missing, "unexpected": unexpected, "of another shape": shaped}
    return ", ".join(f"{len(keys)} keys {what} ({', '.join(keys[:3])} ...)" for what, keys in named.items() if keys)


def _convert_any(state: Mapping[str, Any], model: nn.Module) -> dict[str, Any] | None:
    from ffplug.apis.converters import find_converter
    from ffplug.plugin import plugins

    for plugin in plugins():
        for source in plugin.components.get("converters", ()):
            try:
                converted = find_converter(source)(state)
            except (CheckpointError, ConfigError):  # of another model, or of one that needs what is not installed
                continue
            if not _mismatch(model, converted):
                return converted
    return None
