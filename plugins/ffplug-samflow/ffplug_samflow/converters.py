"""Converters for the checkpoints of SAMFlow's public code, and for the image encoders of SAM and MobileSAM."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from ffplug_flowformer.converters import UNREAD, adapt, cost_rules, decoder_rules, twins_rules
from torch import Tensor

from ffplug.apis.converters import Converter
from ffplug.apis.converters.rename import StateDict
from ffplug_samflow.models.tiny_vit import MobileSAMTinyViT
from ffplug_samflow.models.vit import SAMViTEncoder, rename_vit
from ffplug_samflow.registry import CONVERTERS

CONTEXT = "context_encoder."

_LAYER = r"CAM\.transformer\.layers\.(\d)\."

_RULES = (
    *twins_rules(r"memory_encoder\.feat_encoder\.svt\.", "encoder."),
    *twins_rules(r"context_encoder\.svt\.", f"{CONTEXT}twins."),
    *cost_rules(),
    *decoder_rules(),
    (r"up_layer8\.0\.(.*)", rf"{CONTEXT}reduce.\1"),
    (r"CFM\.(\d)\.conv1\.(.*)", rf"{CONTEXT}fuse.\1.layers.0.conv.\2"),
    (r"CFM\.(\d)\.norm1\.(.*)", rf"{CONTEXT}fuse.\1.layers.0.norm.\2"),
    (r"CFM\.(\d)\.conv2\.(.*)", rf"{CONTEXT}fuse.\1.layers.1.conv.\2"),
    (r"CFM\.(\d)\.norm2\.(.*)", rf"{CONTEXT}fuse.\1.layers.1.norm.\2"),
    (r"CFM\.(\d)\.downsample\.0\.(.*)", rf"{CONTEXT}fuse.\1.shortcut.conv.\2"),
    (r"CFM\.(\d)\.downsample\.1\.(.*)", rf"{CONTEXT}fuse.\1.shortcut.norm.\2"),
    (rf"{_LAYER}mlp\.lin1\.(.*)", rf"{CONTEXT}adapt.layers.\1.mlp.0.\2"),
    (rf"{_LAYER}mlp\.lin2\.(.*)", rf"{CONTEXT}adapt.layers.\1.mlp.2.\2"),
    (rf"{_LAYER}(.*)", rf"{CONTEXT}adapt.layers.\1.\2"),
    (r"CAM\.flow_init_token\.weight", f"{CONTEXT}adapt.output_tokens"),
    (r"CAM\.pe_layer\.positional_encoding_gaussian_matrix", f"{CONTEXT}adapt.position"),
    (r"LTSE\.LTSE_embed\.weight", f"{CONTEXT}adapt.task_embedding"),
    (r"wadd_1\.add_weight", f"{CONTEXT}weight"),
    (r"sam_encoder\.(.*)", rf"{CONTEXT}sam.\1"),
)

_UNREAD = (
    *UNREAD,
    r"CFM\.0\.norm3\..*",  # one tensor under two keys; loading leaves that of `downsample.1` in force
    r"CAM\.transformer\.(?:final_attn_token_to_image|norm_final_attn)\..*",
    r"sam_encoder\.(?:norm_head|head)\..*",
    r"sam_encoder\.pixel_(?:mean|std)",
)


def adapt_vit(state: StateDict) -> StateDict:
    """FlowFormer's changes, and SAM's keys to mmpretrain's."""
    prefix = f"{CONTEXT}sam."
    renamed = {
        f"{prefix}backbone.{rename_vit(key.removeprefix(prefix))}" if key.startswith(prefix) else key: value
        for key, value in state.items()
    }
    return adapt(renamed)


def _register(converter: Converter) -> None:
    CONVERTERS.register_module(name=converter.source, module=converter)


_register(Converter("samflow_tiny", "samflow_tiny", _RULES, _UNREAD, adapt))
for _name in ("samflow_b", "samflow_l", "samflow_h", "samflow_h_ft"):
    _register(Converter(_name, _name, _RULES, _UNREAD, adapt_vit))


_ENCODERS = {
    "sam_vit_b": functools.partial(SAMViTEncoder, arch="base"),
    "sam_vit_l": functools.partial(SAMViTEncoder, arch="large"),
    "sam_vit_h": functools.partial(SAMViTEncoder, arch="huge"),
    "mobile_sam": MobileSAMTinyViT,
}


def convert_encoder(source: str, state_dict: Mapping[str, Tensor]) -> StateDict:
    """Take the image encoder out of a file of SAM or MobileSAM: a state dict of the frozen encoder alone."""
    with torch.device("meta"):
        encoder = _ENCODERS[source]()
    return encoder.convert(state_dict)


for _source in _ENCODERS:
    CONVERTERS.register_module(name=_source, module=functools.partial(convert_encoder, _source))
