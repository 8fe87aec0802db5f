"""Converters for the checkpoints of FlowFormer's public code."""

from __future__ import annotations

from ffplug.apis.converters import Converter, attention_rules, encoder_rules, join_gates, update_rules
from ffplug.apis.converters.rename import StateDict
from ffplug_flowformer.registry import CONVERTERS

CONTEXT_INPUTS = 128
"""Channels of the context that the recurrent unit reads; the rest of the projected context is its first state."""

_CROSS = r"(norm1|norm2|q|k|v|proj)\.(weight|bias)"


def _perceptron_rules(source: str, target: str) -> list[tuple[str, str]]:
    """Rules for the two linear layers of an ``ffn``, between which the public code has a dropout."""
    return [(rf"{source}ffn\.0\.(.*)", rf"{target}ffn.0.\1"), (rf"{source}ffn\.3\.(.*)", rf"{target}ffn.2.\1")]


def cost_rules(source: str = r"memory_encoder\.", target: str = "cost.") -> list[tuple[str, str]]:
    """Rules for the cost encoder, from the matching features on."""
    perceiver = rf"{source}cost_perceiver_encoder\."
    pixel, across = rf"{perceiver}encoder_layers\.(\d)\.", rf"{perceiver}vertical_encoder_layers\.(\d)\."
    grid = rf"{across}(local_block|global_block)\."
    return [
        (rf"{source}channel_convertor\.weight", rf"{target}channel_convertor.weight"),
        (rf"{perceiver}latent_tokens", rf"{target}summary.latent"),
        (rf"{perceiver}patch_embed\.proj\.([024])\.(.*)", rf"{target}patch_embed.convolutions.@\1.\2"),
        (rf"{perceiver}patch_embed\.ffn_with_coord\.0\.(.*)", rf"{target}patch_embed.mix.\1"),
        (rf"{perceiver}patch_embed\.ffn_with_coord\.2\.(.*)", rf"{target}patch_embed.project.\1"),
        (rf"{perceiver}patch_embed\.norm\.(.*)", rf"{target}patch_embed.norm.\1"),
        (rf"{perceiver}input_layer\.{_CROSS}", rf"{target}summary.\1.\2"),
        *_perceptron_rules(rf"{perceiver}input_layer\.", rf"{target}summary."),
        (rf"{pixel}{_CROSS}", rf"{target}layers.\1.pixel.\2.\3"),
        (rf"{pixel}ffn\.0\.(.*)", rf"{target}layers.\1.pixel.ffn.0.\2"),
        (rf"{pixel}ffn\.3\.(.*)", rf"{target}layers.\1.pixel.ffn.2.\2"),
        (rf"{grid}attn\.sr_key\.(.*)", rf"{target}layers.\1.\2.attn.thin_key.\3"),
        (rf"{grid}attn\.(?:sr_value|sr)\.(.*)", rf"{target}layers.\1.\2.attn.thin_value.\3"),
        (rf"{grid}mlp\.fc1\.(.*)", rf"{target}layers.\1.\2.mlp.0.\3"),
        (rf"{grid}mlp\.fc2\.(.*)", rf"{target}layers.\1.\2.mlp.2.\3"),
        (rf"{grid}(.*)", rf"{target}layers.\1.\2.\3"),
    ]


def decoder_rules(source: str = r"memory_decoder\.") -> list[tuple[str, str]]:
    """Rules for the memory decoder: the query of the cost memory, and GMA's update block."""
    attend = rf"{source}decoder_layer\.cross_attend\."
    return [
        (rf"{source}flow_token_encoder\.([02])\.(.*)", r"cost.query.embed.\1.\2"),
        (rf"{attend}{_CROSS}", r"cost.query.\1.\2"),
        *_perceptron_rules(attend, "cost.query."),
        (rf"{source}proj\.(.*)", r"decoder.update.project.\1"),
        *update_rules(rf"{source}update_block\.", "decoder."),
        *attention_rules(rf"{source}att\.", "decoder."),
    ]


def twins_rules(source: str, target: str) -> list[tuple[str, str]]:
    """Rules for one Twins encoder, under the prefixes ``source`` (with ``svt.``) and ``target`` (with its dot)."""
    return [(rf"{source}((?:patch_embeds|blocks|pos_block)\..*)", rf"{target}backbone.\1")]


UNREAD = (r".*\.svt\.norm\.(?:weight|bias)", r"memory_decoder\.att\.pos_emb\..*")
"""Keys in every checkpoint that the network never reads: the norm of Twins' last stage, GMA's position tables."""

RULES = (
    *twins_rules(r"memory_encoder\.feat_encoder\.svt\.", "encoder."),
    *twins_rules(r"context_encoder\.svt\.", "context_encoder."),
    *cost_rules(),
    *decoder_rules(),
)

SMALL_RULES = (
    *encoder_rules(r"memory_encoder\.feat_encoder\.", "encoder."),
    *encoder_rules(r"context_encoder\.", "context_encoder."),
    *cost_rules(),
    *decoder_rules(),
)


def adapt(state: StateDict) -> StateDict:
    """Bring renamed tensors to our shapes: 1x1 convolutions that are linear layers here, and the joined gates."""
    shaped: StateDict = {}
    for key, value in state.items():
        if key.startswith("cost.patch_embed.convolutions.@"):
            index, _, rest = key.removeprefix("cost.patch_embed.convolutions.@").partition(".")
            shaped[f"cost.patch_embed.convolutions.{int(index) // 2}.{rest}"] = value
        elif key == "cost.summary.latent":
            shaped[key] = value[0]
        elif key.startswith("cost.") and value.shape[2:] == (1, 1):
            shaped[key] = value.flatten(1)
        else:
            shaped[key] = value
    return join_gates(shaped, inputs=CONTEXT_INPUTS)


def _register(converter: Converter) -> None:
    CONVERTERS.register_module(name=converter.source, module=converter)


_register(Converter("flowformer", "flowformer", RULES, UNREAD, adapt))
_register(Converter("flowformer_small", "flowformer_small", SMALL_RULES, UNREAD, adapt))
