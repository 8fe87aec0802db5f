"""Converters for RAFT and GMA as MMFlow's 0.x and 1.x branches keep them; both have the same keys.

MMFlow's networks differ from the published ones in two things that weights can make up for: frames come in the order
BGR, and the position logits of GMA's attention are not divided by the square root of the channels. So its checkpoints
run in the core's networks as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ffplug.apis.converters import Converter, join_gates, strip_wrappers
from ffplug.apis.converters.rename import StateDict
from ffplug_mmflow.registry import CONVERTERS

_ENCODERS = {"encoder": "encoder", "context": "context_encoder"}
_MOTION = {
    r"corr_net\.0": "cost_in",
    r"corr_net\.1": "cost_out",
    r"flow_net\.0": "flow_in",
    r"flow_net\.1": "flow_out",
    r"out_net\.0": "fuse",
}
_TABLES = tuple(f"decoder.update.attention.position.{axis}.weight" for axis in ("height", "width"))


def _rules() -> list[tuple[str, str]]:
    rules = []
    for theirs, ours in _ENCODERS.items():
        stage = rf"{theirs}\.res_layer(\d)\.(\d)\."
        rules += [
            (rf"{theirs}\.conv1\.(.*)", rf"{ours}.stem.conv.\1"),
            (rf"{theirs}\.bn1\.(.*)", rf"{ours}.stem.norm.\1"),
            (rf"{theirs}\.conv2\.(.*)", rf"{ours}.head.\1"),
            (rf"{stage}downsample\.0\.(.*)", rf"{ours}.stages.@\1.\2.shortcut.conv.\3"),
            (rf"{stage}downsample\.1\.(.*)", rf"{ours}.stages.@\1.\2.shortcut.norm.\3"),
            (rf"{stage}conv(\d)\.(.*)", rf"{ours}.stages.@\1.\2.layers.@\3.conv.\4"),
            (rf"{stage}bn(\d)\.(.*)", rf"{ours}.stages.@\1.\2.layers.@\3.norm.\4"),
        ]
    update = "decoder.update."
    rules += [
        (rf"decoder\.encoder\.{theirs}\.conv\.(.*)", rf"{update}motion_encoder.{ours}.\1")
        for theirs, ours in _MOTION.items()
    ]
    for theirs, ours in (("flow_pred", f"{update}flow_head"), ("mask_pred", "decoder.upsampler.mask_head")):
        rules += [
            (rf"decoder\.{theirs}\.layers\.0\.conv\.(.*)", rf"{ours}.0.\1"),
            (rf"decoder\.{theirs}\.predict_layer\.(.*)", rf"{ours}.1.\1"),
        ]
    return [
        *rules,
        (r"decoder\.gru\.conv_([zrq])\.(\d)\.conv\.(.*)", rf"{update}gru.\2.\1.\3"),
        (r"decoder\.attn\.to_qk\.weight", f"{update}attention.query_key.weight"),
        (r"decoder\.attn\.pos_emb\.rel_(height|width)\.weight", rf"{update}attention.position.\1.weight"),
        (r"decoder\.aggregator\.to_v\.(.*)", rf"{update}aggregator.value.\1"),
        (r"decoder\.aggregator\.project\.(.*)", rf"{update}aggregator.project.\1"),
        (r"decoder\.aggregator\.gamma", f"{update}aggregator.weight"),
    ]


def adapt(state: StateDict) -> StateDict:
    """Join the gates, take RGB in place of BGR, and make up for the position logits that MMFlow does not scale."""
    joined = join_gates(state)
    for encoder in _ENCODERS.values():
        joined[f"{encoder}.stem.conv.weight"] = joined[f"{encoder}.stem.conv.weight"].flip(1)
    for table in _TABLES:
        if table in joined:
            joined[table] = joined[table] * joined[table].shape[1] ** 0.5
    return joined


_RULES = _rules()
_UNREAD = (r"decoder\.attn\.pos_emb\.rel_ind",)

for _source, _model in (
    ("mmflow_raft", "raft_large"),
    ("mmflow_gma", "gma"),
    ("mmflow_gma_position_only", "gma_position_only"),
    ("mmflow_gma_position_and_content", "gma_position_and_content"),
):
    CONVERTERS.register_module(name=_source, module=Converter(_source, _model, _RULES, _UNREAD, adapt))


@CONVERTERS.register_module(name="mmflow")
def baseline(state_dict: Mapping[str, Tensor]) -> StateDict:
    """Put the weights of any network of MMFlow, as they are, under the keys of ``ffplug_mmflow.MMFlowEstimator``."""
    return {f"network.{key}": value for key, value in strip_wrappers(state_dict).items()}
