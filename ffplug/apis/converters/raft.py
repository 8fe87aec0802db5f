"""Converters for princeton-vl's RAFT, torchvision's RAFT and zacjiang's GMA."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ffplug.apis.converters.rename import Converter, StateDict, strip_wrappers
from ffplug.registry import CONVERTERS

_ENCODERS = {"fnet": "encoder", "cnet": "context_encoder"}
_MOTION = {"convc1": "cost_in", "convc2": "cost_out", "convf1": "flow_in", "convf2": "flow_out", "conv": "fuse"}


def encoder_rules(source: str, target: str) -> list[tuple[str, str]]:
    """Rules for one residual encoder of RAFT's code, under the prefixes ``source`` and ``target`` (with their dot)."""
    rules = [
        (rf"{source}conv1\.(.*)", rf"{target}stem.conv.\1"),
        (rf"{source}norm1\.(.*)", rf"{target}stem.norm.\1"),
        (rf"{source}conv2\.(.*)", rf"{target}head.\1"),
        (rf"{source}layer(\d)\.(\d)\.downsample\.0\.(.*)", rf"{target}stages.@\1.\2.shortcut.conv.\3"),
        (rf"{source}layer(\d)\.(\d)\.downsample\.1\.(.*)", rf"{target}stages.@\1.\2.shortcut.norm.\3"),
    ]
    for kind in ("conv", "norm"):
        rules.append((rf"{source}layer(\d)\.(\d)\.{kind}(\d)\.(.*)", rf"{target}stages.@\1.\2.layers.@\3.{kind}.\4"))
    return rules


def update_rules(source: str, target: str) -> list[tuple[str, str]]:
    """Rules for RAFT's and GMA's update block; the gates are joined by :func:`join_gates`."""
    rules = [
        (rf"{source}encoder\.{old}\.(.*)", rf"{target}update.motion_encoder.{new}.\1") for old, new in _MOTION.items()
    ]
    return [
        *rules,
        (rf"{source}gru\.conv([zrq])(\d?)\.(.*)", rf"{target}update.gru.@\2.\1.\3"),
        (rf"{source}flow_head\.conv1\.(.*)", rf"{target}update.flow_head.0.\1"),
        (rf"{source}flow_head\.conv2\.(.*)", rf"{target}update.flow_head.1.\1"),
        (rf"{source}mask\.0\.(.*)", rf"{target}upsampler.mask_head.0.\1"),
        (rf"{source}mask\.2\.(.*)", rf"{target}upsampler.mask_head.1.\1"),
        (rf"{source}aggregator\.to_v\.(.*)", rf"{target}update.aggregator.value.\1"),
        (rf"{source}aggregator\.project\.(.*)", rf"{target}update.aggregator.project.\1"),
        (rf"{source}aggregator\.gamma", rf"{target}update.aggregator.weight"),
    ]


def attention_rules(source: str, target: str) -> list[tuple[str, str]]:
    """Rules for GMA's attention, position tables included."""
    return [
        (rf"{source}to_qk\.weight", rf"{target}update.attention.query_key.weight"),
        (rf"{source}pos_emb\.rel_height\.weight", rf"{target}update.attention.position.height.weight"),
        (rf"{source}pos_emb\.rel_width\.weight", rf"{target}update.attention.position.width.weight"),
    ]


def indexed(state: StateDict) -> StateDict:
    """Turn the marks ``@K`` in keys, indices that count from one (or are empty), into indices from zero."""
    counted: StateDict = {}
    for key, value in state.items():
        parts = [str(max(int(part[1:] or 1) - 1, 0)) if part.startswith("@") else part for part in key.split(".")]
        counted[".".join(parts)] = value
    return counted


def join_gates(state: StateDict, decoder: str = "decoder.", inputs: int | None = None) -> StateDict:
    """Turn the three gate convolutions of RAFT's recurrent unit into the cell's, and count from zero.

    RAFT convolves ``cat[hidden, input, motion ...]`` for each gate; here the constant input has a convolution of its
    own for all three gates, and update and reset gate share one.

    Args:
        state: renamed state dict, with the marks of :func:`indexed`.
        decoder: prefix of the decoder.
        inputs: channels of the constant input, or None for those that the context has beyond the hidden state.
    """
    counted = indexed(state)
    prefix = f"{decoder}update.gru."
    cells = sorted({key.removeprefix(prefix).split(".")[0] for key in counted if key.startswith(prefix)})
    for cell in cells:
        weight, bias = (
            {gate: counted.pop(f"{prefix}{cell}.{gate}.{name}") for gate in "zrq"} for name in ("weight", "bias")
        )
        hidden = weight["z"].shape[0]
        width = inputs if inputs is not None else _input_channels(counted, hidden)
        constant = {gate: value[:, hidden : hidden + width] for gate, value in weight.items()}
        changing = {
            gate: torch.cat((value[:, :hidden], value[:, hidden + width :]), dim=1) for gate, value in weight.items()
        }
        counted[f"{prefix}{cell}.constant.weight"] = torch.cat([constant[gate] for gate in "zrq"])
        counted[f"{prefix}{cell}.constant.bias"] = torch.cat([bias[gate] for gate in "zrq"])
        counted[f"{prefix}{cell}.gates.weight"] = torch.cat((changing["z"], changing["r"]))
        counted[f"{prefix}{cell}.candidate.weight"] = changing["q"]
    return counted


def _input_channels(state: StateDict, hidden: int) -> int:
    return state["context_encoder.head.weight"].shape[0] - hidden


_RULES = [
    *encoder_rules(r"fnet\.", "encoder."),
    *encoder_rules(r"cnet\.", "context_encoder."),
    *update_rules(r"update_block\.", "decoder."),
]
# The shortcut's norm is stored under two keys; `downsample.1` is the one that loading leaves in force.
_TWICE = [r"[fc]net\.layer\d\.0\.norm[34]\.(?:weight|bias|running_mean|running_var|num_batches_tracked)"]
_TWICE_SMALL = [r"[fc]net\.layer\d\.0\.norm4\..*"]


def _gma(source: str, position: bool) -> Converter:
    unread = [r"att\.pos_emb\.rel_ind"] if position else [r"att\.pos_emb\..*"]
    return Converter(source, source, [*_RULES, *attention_rules(r"att\.", "decoder.")], [*_TWICE, *unread], join_gates)


def _register(converter: Converter) -> None:
    CONVERTERS.register_module(name=converter.source, module=converter)


_register(Converter("raft_large", "raft_large", _RULES, _TWICE, join_gates))
_register(Converter("raft_small", "raft_small", _RULES, _TWICE_SMALL, join_gates))
_register(_gma("gma", position=False))
_register(_gma("gma_heads4", position=False))
_register(_gma("gma_position_only", position=True))
_register(_gma("gma_position_and_content", position=True))


def _torchvision_rules() -> list[tuple[str, str]]:
    rules = []
    for source, target in (("feature_encoder", "encoder"), ("context_encoder", "context_encoder")):
        rules += [
            (rf"{source}\.convnormrelu\.0\.(.*)", rf"{target}.stem.conv.\1"),
            (rf"{source}\.convnormrelu\.1\.(.*)", rf"{target}.stem.norm.\1"),
            (rf"{source}\.conv\.(.*)", rf"{target}.head.\1"),
        ]
        for index, kind in enumerate(("conv", "norm")):
            rules += [
                (
                    rf"{source}\.layer(\d)\.(\d)\.convnormrelu(\d)\.{index}\.(.*)",
                    rf"{target}.stages.@\1.\2.layers.@\3.{kind}.\4",
                ),
                (
                    rf"{source}\.layer(\d)\.(\d)\.downsample\.{index}\.(.*)",
                    rf"{target}.stages.@\1.\2.shortcut.{kind}.\3",
                ),
            ]
    block = r"update_block\."
    names = {
        "convcorr1": "cost_in",
        "convcorr2": "cost_out",
        "convflow1": "flow_in",
        "convflow2": "flow_out",
        "conv": "fuse",
    }
    rules += [
        (rf"{block}motion_encoder\.{old}\.0\.(.*)", rf"decoder.update.motion_encoder.{new}.\1")
        for old, new in names.items()
    ]
    return [
        *rules,
        (rf"{block}recurrent_block\.convgru(\d)\.conv([zrq])\.(.*)", r"decoder.update.gru.@\1.\2.\3"),
        (rf"{block}flow_head\.conv1\.(.*)", r"decoder.update.flow_head.0.\1"),
        (rf"{block}flow_head\.conv2\.(.*)", r"decoder.update.flow_head.1.\1"),
        (r"mask_predictor\.convrelu\.0\.(.*)", r"decoder.upsampler.mask_head.0.\1"),
        (r"mask_predictor\.conv\.(.*)", r"decoder.upsampler.mask_head.1.\1"),
    ]


_TORCHVISION = {
    model: Converter("torchvision", model, _torchvision_rules(), (), join_gates)
    for model in ("raft_large", "raft_small")
}


@CONVERTERS.register_module(name="torchvision")
def torchvision_raft(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Convert torchvision's ``raft_large`` or ``raft_small``; the first has a mask predictor, the second none."""
    large = any(key.startswith("mask_predictor.") for key in strip_wrappers(state_dict))
    return _TORCHVISION["raft_large" if large else "raft_small"](state_dict)
