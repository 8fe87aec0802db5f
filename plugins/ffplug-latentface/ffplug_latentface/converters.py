"""The checkpoints of unsup3d's and LatentFace's public code."""

from __future__ import annotations

import collections
import os
import pickle
import tarfile
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffplug.apis.converters import Converter
from ffplug.apis.converters.rename import StateDict
from ffplug.config import load_config
from ffplug.errors import CheckpointError
from ffplug_latentface.registry import CONVERTERS

_NETWORKS = {"netD": "depth", "netA": "albedo"}
_CODED = 13
"""Layers of unsup3d's autoencoders before the code; LatentFace splits them there."""


def read_public_checkpoint(path: str | os.PathLike) -> StateDict:
    """Read the networks of a public training checkpoint, without running what it holds.

    Beside tensors these files hold pickled objects, such as the history of metrics; each becomes an empty object.

    Args:
        path: a ``.pth`` file with ``netD``, ``netA``, ``netL``, ``netV``, ``netC`` and perhaps ``netEA``, ``netED``.

    Returns:
        Tensors by ``NETWORK.KEY``.

    Raises:
        CheckpointError: the file is missing, damaged, or holds no such networks.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    if not path.stat().st_size:
        raise CheckpointError(f"checkpoint {path} is empty (0 bytes): download or copy it again")
    if tarfile.is_tarfile(path):
        raise CheckpointError(f"checkpoint {path} is a tar archive of an old PyTorch: save it again with a newer one")
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_INERT)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"checkpoint {path} is truncated or no checkpoint: {reason}") from error
    state = {
        f"{name}.{key}": value
        for name, part in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(part, Mapping) and str(name).startswith("net")
        for key, value in part.items()
        if isinstance(value, Tensor)
    }
    if not state:
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"checkpoint {path}: no networks netD, netA ... in it (found {found})")
    return state


class _Nothing:
    """Takes the place of every object that is no tensor."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Nothing."""

    def extend(self, values: Any) -> None:
        """Nothing."""


_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}
_STORAGES = ("FloatStorage", "DoubleStorage", "HalfStorage", "LongStorage", "IntStorage", "ByteStorage", "BoolStorage")


class _Unpickler(pickle.Unpickler):
    """Builds tensors and plain containers; any other name is :class:`_Nothing`."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return getattr(torch, name)
        return _ALLOWED.get((module, name), _Nothing)


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_INERT = types.ModuleType("inert_pickle")
_INERT.Unpickler, _INERT.load, _INERT.UnpicklingError = _Unpickler, _load, pickle.UnpicklingError


def _renamed(state: StateDict) -> StateDict:
    """The autoencoder's keys of either code."""
    renamed = {}
    for key, value in state.items():
        net, part, rest = key.split(".", 2)
        if net in _NETWORKS:
            if part == "network":
                layer, _, last = rest.partition(".")
                number = int(layer)
                part = "network1" if number < _CODED else "network2"
                rest = f"{number - (0 if number < _CODED else _CODED)}.{last}"
            half = {"network1": "encoder", "network2": "decoder"}[part]
            renamed[f"networks.{_NETWORKS[net]}.{half}.{rest}"] = value
        elif net in ("netL", "netV"):
            renamed[f"networks.{'light' if net == 'netL' else 'view'}.{part}.{rest}"] = value
        elif net == "netC":
            names = {"network": "network", "out_net1": "pixels", "out_net2": "cells"}
            renamed[f"confidence.{names[part]}.{rest}"] = value
    return renamed


def _latentface(state: StateDict) -> StateDict:
    """Both stages' keys, the denoisers as perceptrons."""
    from ffplug_latentface.models.denoiser import unet_to_mlp

    renamed = {f"autoencoder.{key}": value for key, value in _renamed(state).items()}
    for number, net in enumerate(("netEA", "netED")):
        inner = {key[len(net) + 1 :]: value for key, value in state.items() if key.startswith(f"{net}.")}
        renamed.update({f"denoisers.{number}.{key}": value for key, value in unet_to_mlp(inner).items()})
    return renamed


class _Converter(Converter):
    """Of the public checkpoints, whatever their denoisers' width."""

    def target(self, converted: StateDict) -> str | dict[str, Any]:
        """The model, with the width of the denoisers: 128, or 1024 in the first release."""
        key = "denoisers.0.first.weight"
        if key not in converted:
            return self.model
        return {**load_config(self.model)["model"].to_dict(), "width": len(converted[key])}


def _register(source: str, model: str, drop: tuple[str, ...], adapt: Callable[[StateDict], StateDict]) -> None:
    rules = ((r"(net\w+\..*)", r"\1"),)
    CONVERTERS.register_module(
        name=source, module=_Converter(source, model, rules, drop, adapt, read_public_checkpoint)
    )


_register("unsup3d", "latentface_autoencoder", (r"netE[AD]\..*",), _renamed)
_register("latentface", "latentface", (), _latentface)
