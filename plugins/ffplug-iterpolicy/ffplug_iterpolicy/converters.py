"""Converters for the authors' checkpoints of RAFT, GMA and FlowFormer with a policy."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ffplug.apis.converters import strip_wrappers
from ffplug.apis.converters.rename import StateDict, find_converter
from ffplug.errors import CheckpointError
from ffplug_iterpolicy.models.context_policy import iteration_embedding
from ffplug_iterpolicy.registry import CONVERTERS

_CELL = {
    "iter_mask.iter_mask_0.0.weight": "convolution.weight",
    "iter_mask.iter_mask_0.0.bias": "convolution.bias",
    "iter_mask.iter_mask_1.2.weight": "decision.weight",
    "iter_mask.iter_mask_1.2.bias": "decision.bias",
}


def convert_policy(state_dict: Mapping[str, Tensor], base: str) -> StateDict:
    """Convert a checkpoint of a base network with a policy; every tensor of both must be there.

    Args:
        state_dict: of the authors' code.
        base: the source of the base network's converter.

    Raises:
        CheckpointError: the policy or a part of it is missing (their own code ignores that), or the base does not fit.
    """
    state = strip_wrappers(state_dict)
    policy = {re.sub(r"^.*?(?=iter_mask\.iter_mask)", "", key): key for key in state if "iter_mask" in key}
    missing, unknown = sorted(_CELL.keys() - policy.keys()), sorted(policy.keys() - _CELL.keys())
    if missing or unknown:
        what = f"policy tensors missing: {', '.join(missing)}" if missing else f"unknown policy tensors: {unknown}"
        hint = f"; a checkpoint of the base alone is converted with --from {base}" if not policy else ""
        raise CheckpointError(f"not a checkpoint of {base} with an iteration policy: {what}{hint}")
    embedding = next((key for key in state if key.rpartition(".")[2] == "itr_embedding"), None)
    if embedding is not None and not torch.allclose(state[embedding].float().flatten(1), iteration_embedding()):
        raise CheckpointError(
            f"{embedding} is not the published iteration embedding: this policy would not be the same"
        )
    left = {key: value for key, value in state.items() if key not in policy.values() and key != embedding}
    converted = find_converter(base)(left)
    for theirs, ours in _CELL.items():
        value = state[policy[theirs]]
        converted[f"decoder.policy.cell.{ours}"] = value.flatten(1) if ours == "decision.weight" else value
    converted["decoder.policy.calibrated"] = torch.ones(())
    return converted


def _register(source: str, base: str) -> None:
    def convert(state_dict: Mapping[str, Tensor]) -> StateDict:
        """Turn the authors' checkpoint of a base with its policy into the keys of ours; see :func:`convert_policy`."""
        return convert_policy(state_dict, base)

    CONVERTERS.register_module(name=source, module=convert)


_register("raft_large_iterpolicy", "raft_large")
_register("gma_iterpolicy", "gma")
_register("flowformer_iterpolicy", "flowformer")
