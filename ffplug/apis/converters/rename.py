"""How a converter is made: rules that rename keys, and a strict check against the network they lead to."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffplug.apis.checkpoints import read_state_dict
from ffplug.errors import CheckpointError, did_you_mean

StateDict = dict[str, Tensor]

WRAPPERS = ("module.", "model.", "_orig_mod.")
"""Prefixes that DataParallel, Lightning and ``torch.compile`` put in front of every key."""


@dataclasses.dataclass(frozen=True)
class Converter:
    """Turns the state dict of a public implementation into FFPlug's.

    Attributes:
        source: name of the public implementation, as users give it.
        model: name of FFPlug's model whose keys and shapes the result must have.
        rules: (regular expression, replacement), tried in order; the first that matches the whole key renames it.
        drop: regular expressions of whole keys that the network never reads.
        adapt: last change to the renamed state dict (splitting a tensor, say), or None.
        read: reads a file of the public implementation where :func:`ffplug.apis.checkpoints.read_state_dict` cannot:
            networks nested in a training checkpoint, say. It must not run what the file holds.
    """

    source: str
    model: str
    rules: Sequence[tuple[str, str]]
    drop: Sequence[str] = ()
    adapt: Callable[[StateDict], StateDict] | None = None
    read: Callable[[Path], StateDict] = read_state_dict

    def __call__(self, state_dict: Mapping[str, Tensor]) -> StateDict:
        """Rename ``state_dict`` and check it; see :func:`ffplug.convert_state_dict`."""
        converted: StateDict = {}
        unexpected = []
        unread = set(self.unread(state_dict))
        for key, value in strip_wrappers(state_dict).items():
            if key in unread:
                continue
            for pattern, replacement in self.rules:
                renamed, count = re.subn(f"^(?:{pattern})$", replacement, key)
                if count:
                    converted[renamed] = value
                    break
            else:
                unexpected.append(key)
        if unexpected:
            raise CheckpointError(self._complaint("unexpected keys", unexpected))
        if self.adapt is not None:
            try:
                converted = self.adapt(converted)
            except KeyError as error:
                raise CheckpointError(self._complaint("missing keys", [str(error.args[0])])) from None
        return self.check(converted)

    def unread(self, state_dict: Mapping[str, Tensor]) -> list[str]:
        """Keys of ``state_dict`` that the network never reads and the conversion leaves out."""
        return [key for key in strip_wrappers(state_dict) if any(re.fullmatch(rule, key) for rule in self.drop)]

    def target(self, converted: StateDict) -> str | dict[str, Any]:
        """The network that a converted state dict is held against, for :func:`ffplug.build_model`: ``model``, unless a
        subclass tells from the tensors that they are of another width, say.
        """
        return self.model

    def check(self, converted: StateDict) -> StateDict:
        """Hold a converted state dict against the network: every key there, no other, of the same shape."""
        from ffplug.apis.models import build_model

        with torch.device("meta"):
            model = build_model(self.target(converted))
        excluded = model.checkpoint_exclude_prefixes()
        expected = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
        missing = [k for k in expected if k not in converted and not k.startswith(excluded)]
        unexpected = [k for k in converted if k not in expected and not k.endswith("num_batches_tracked")]
        if missing or unexpected:
            parts = [self._complaint("missing keys", missing)] if missing else []
            parts += [self._complaint("unexpected keys", unexpected)] if unexpected else []
            raise CheckpointError("; ".join(parts))
        for key, value in converted.items():
            if key in expected and value.shape != expected[key].shape:
                raise CheckpointError(
                    f"source {self.source!r}: {key} has shape {tuple(value.shape)}, "
                    f"model {self.model!r} expects {tuple(expected[key].shape)}"
                )
        return converted

    def _complaint(self, what: str, keys: Sequence[str]) -> str:
        shown = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
        return f"not a {self.source!r} state dict: {len(keys)} {what} ({shown})"


def strip_wrappers(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Drop the prefixes that every key of a wrapped model has."""
    state = dict(state_dict)
    stripped = True
    while stripped and state:
        stripped = False
        for prefix in WRAPPERS:
            if all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
                stripped = True
    return state


def convert_state_dict(state_dict: Mapping[str, Tensor], source: str) -> StateDict:
    """Rename the state dict of a public implementation to FFPlug's keys.

    Args:
        state_dict: tensors by the keys of the public implementation, with or without a wrapper's prefix.
        source: which implementation: ``raft_large``, ``raft_small``, ``torchvision``, ``gma`` ...; ``ffplug list``
            shows those of the installed plugins.

    Returns:
        The state dict of the FFPlug model, complete.

    Raises:
        CheckpointError: unknown source, or keys that are missing, unexpected or of another shape.
    """
    return find_converter(source)(state_dict)


def read_public(path: str | os.PathLike, source: str) -> StateDict:
    """Read a file of the public implementation ``source``, as its converter does: unconverted tensors by name."""
    return getattr(find_converter(source), "read", read_state_dict)(path)


def find_converter(source: str) -> Callable[[Mapping[str, Tensor]], StateDict]:
    """Return the converter of ``source``, from the core or whichever installed plugin has it."""
    from ffplug.plugin import component_owners
    from ffplug.registry import CONVERTERS

    packages = component_owners("converters")
    name = source.replace("-", "_")
    if name not in packages:
        known = ", ".join(sorted(packages))
        raise CheckpointError(f"unknown source {source!r}: expected one of {known}{did_you_mean(name, packages)}")
    return CONVERTERS.get(f"{packages[name]}.{name}")
