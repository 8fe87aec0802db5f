"""Converters for DecFlow's checkpoints, for GMA's as a start of DecFlow, and for DAD-3DNet's encoder."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from ffplug.apis.converters import Converter, attention_rules, encoder_rules, join_gates, strip_wrappers, update_rules
from ffplug.apis.converters.raft import indexed
from ffplug.apis.converters.rename import StateDict, find_converter
from ffplug_decflow.registry import CONVERTERS

SEMANTIC = "context_encoder.semantic."
"""Where the semantic encoder lies in the network."""

HEAD = "decoders.head."

_CONTEXT = "context_encoder.context."
_PREFIX = r"(?:dad_encoder\.model\.|encoder\.model\.|encoder\.|features\.|context_encoder\.semantic\.)"
_NAMED = {"init_block.": "0.", "stage1.": "1.", "stage2.": "2."}
_UNIT = r"([12])\.unit(\d)\."
_SEMANTIC_RULES = (
    (r"0\.conv\.conv\.(.*)", r"stem.conv.\1"),
    (r"0\.conv\.bn\.(.*)", r"stem.norm.\1"),
    (rf"{_UNIT}body\.conv(\d)\.conv\.(.*)", r"stages.@\1.@\2.layers.@\3.conv.\4"),
    (rf"{_UNIT}body\.conv(\d)\.bn\.(.*)", r"stages.@\1.@\2.layers.@\3.norm.\4"),
    (rf"{_UNIT}identity_conv\.conv\.(.*)", r"stages.@\1.@\2.shortcut.conv.\3"),
    (rf"{_UNIT}identity_conv\.bn\.(.*)", r"stages.@\1.@\2.shortcut.norm.\3"),
)
_FUSION_RULES = (
    (r"change_dim\.(.*)", r"context_encoder.reduce.\1"),
    (r"res1\.conv(\d)\.(.*)", r"context_encoder.fuse.layers.@\1.conv.\2"),
    (r"res1\.bn(\d)\.(.*)", r"context_encoder.fuse.layers.@\1.norm.\2"),
    (r"res1\.adjustment\.0\.(.*)", r"context_encoder.fuse.shortcut.conv.\1"),
    (r"res1\.adjustment\.1\.(.*)", r"context_encoder.fuse.shortcut.norm.\1"),
)
_GMA_RULES = (
    *encoder_rules(r"fnet\.", "encoder."),
    *encoder_rules(r"cnet\.", _CONTEXT),
    *update_rules(r"update_block\.", "decoder."),
    *update_rules(r"update_block_head\.", HEAD),
    *attention_rules(r"att\.", "decoder."),
)
_UNREAD = (
    r"[fc]net\.layer\d\.0\.norm[34]\.(?:weight|bias|running_mean|running_var|num_batches_tracked)",
    r"att\.pos_emb\..*",
    r"dad_encoder\.model\.3\..*",  # the stage at 1/16, which is stored but never run
)
_INPUTS = 128
"""Channels of the context that the recurrent unit reads."""


def _join_both(state: StateDict) -> StateDict:
    return join_gates(join_gates(state, "decoder.", _INPUTS), HEAD, _INPUTS)


DECFLOW = Converter(
    "decflow",
    "decflow",
    (
        *_GMA_RULES,
        *_FUSION_RULES,
        *((rf"dad_encoder\.model\.{rule}", f"{SEMANTIC}{target}") for rule, target in _SEMANTIC_RULES),
    ),
    _UNREAD,
    _join_both,
)
"""What renames the authors' checkpoints."""

CONVERTERS.register_module(name=DECFLOW.source, module=DECFLOW)


def rename_semantic(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Give the tensors of a ResNet-50 the names of :class:`~ffplug_decflow.models.FacialSemanticEncoder`.

    Args:
        state_dict: of DAD-3DNet, of a network of DecFlow, or of pytorchcv's ``resnet50``, whose names those have.

    Returns:
        What has a name there; other tensors keep their names.
    """
    renamed = {}
    for key, value in strip_wrappers(state_dict).items():
        name = re.sub(f"^{_PREFIX}", "", key)
        for old, new in _NAMED.items():
            name = new + name.removeprefix(old) if name.startswith(old) else name
        for pattern, replacement in _SEMANTIC_RULES:
            name = re.sub(f"^{pattern}$", replacement, name)
        renamed[name] = value
    return indexed(renamed)


@CONVERTERS.register_module(name="decflow_from_gma")
def decflow_from_gma(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Turn GMA's weights into a start of DecFlow's training: the update block serves both decoders.

    What GMA does not have, the semantics and their fusion, is left out, so the result is for ``load_from`` alone.

    Args:
        state_dict: of GMA's published code, or of a GMA of FFPlug's.

    Raises:
        CheckpointError: it is neither.
    """
    own = any(key.startswith("context_encoder.") for key in state_dict)
    state = {}
    for key, value in (state_dict if own else find_converter("gma")(state_dict)).items():
        name = f"{_CONTEXT}{key.removeprefix('context_encoder.')}" if key.startswith("context_encoder.") else key
        state[name] = value
        if key.startswith("decoder.") and ".attention." not in key:
            state[f"{HEAD}{key.removeprefix('decoder.')}"] = value.clone()
    return state
