"""Converter for littlespray's SKFlow."""

from __future__ import annotations

from ffplug.apis.converters.raft import attention_rules, encoder_rules, indexed, update_rules
from ffplug.apis.converters.rename import Converter
from ffplug.registry import CONVERTERS

_BLOCKS = {
    "encoder.convc1": "motion_encoder.cost_in",
    "encoder.convc2": "motion_encoder.cost_out",
    "encoder.convf2": "motion_encoder.flow_out",
    "encoder.conv": "motion_encoder.fuse",
    "gru": "update",
    "flow_head": "flow_head",
}


def _block_rules() -> list[tuple[str, str]]:
    rules = []
    for old, new in _BLOCKS.items():
        source, target = rf"update_block\.{old}\.".replace("encoder.", r"encoder\."), f"decoder.update.{new}."
        rules += [
            (rf"{source}conv_list\.(\d)\.(.*)", rf"{target}depthwise.\1.\2"),
            (rf"{source}pw\.(.*)", rf"{target}pointwise.\1"),
        ]
        for theirs, ours in (("ffn1", "expand"), ("ffn2", "project")):
            rules += [(rf"{source}{theirs}\.{2 * i}\.(.*)", rf"{target}{ours}.{i}.\1") for i in (0, 1)]
    return rules


_RULES = [
    *encoder_rules(r"fnet\.", "encoder."),
    *encoder_rules(r"cnet\.", "context_encoder."),
    *_block_rules(),
    *update_rules(r"update_block\.", "decoder."),
    *attention_rules(r"att\.", "decoder."),
]
_UNREAD = [
    r"[fc]net\.layer\d\.0\.norm[34]\.(?:weight|bias|running_mean|running_var|num_batches_tracked)",
    r"att\.pos_emb\..*",
]

SKFLOW = Converter("skflow", "skflow", _RULES, _UNREAD, indexed)
"""What renames the authors' checkpoints."""

CONVERTERS.register_module(name=SKFLOW.source, module=SKFLOW)
