"""The converter for the checkpoints of STSS's public code."""

from __future__ import annotations

import torch

from ffplug.apis.converters import Converter
from ffplug.apis.converters.rename import StateDict
from ffplug_stss.registry import CONVERTERS

_NET = "network."


def _stack(theirs: str, ours: str) -> list[tuple[str, str]]:
    """A stack of convolutions: there the activations between them are counted too."""
    return [(rf"{theirs}\.{2 * place}\.(.*)", rf"{_NET}{ours}.{place}.\1") for place in range(3)]


def _gated(theirs: str, ours: str) -> list[tuple[str, str]]:
    """A gated convolution: there features and gate are two."""
    return [
        (rf"{theirs}\.conv_feature\.(.*)", rf"{_NET}{ours}.features.\1"),
        (rf"{theirs}\.conv_mask\.0\.(.*)", rf"{_NET}{ours}.gate.\1"),
    ]


_RULES = (
    *(rule for stage in range(3) for rule in _stack(f"convHis{stage + 1}", f"history.frame.{stage}")),
    *_gated("lowlevelGated", "history.fuse"),
    *(rule for place in range(2) for rule in _gated(f"conv{place + 1}", f"stem.{place}")),
    *(
        rule
        for level in range(3)
        for theirs, ours in (("downsample", "shrink"), ("conv1", "first"), ("conv2", "second"))
        for rule in _gated(rf"down{level + 1}\.{theirs}", f"down.{level}.{ours}")
    ),
    *_stack("latentEncoder", "reshading.latent"),
    *_stack("KEncoder", "reshading.key"),
    *(rule for level in range(3) for rule in _stack(rf"up{level + 1}\.conv\.double_conv", f"up.{level}.convolutions")),
    (r"outc\.(.*)", rf"{_NET}head.\1"),
)


def _merge_gates(state: StateDict) -> StateDict:
    """Put each gate behind its features: one convolution gives both."""
    merged = {}
    for key, value in state.items():
        if ".features." in key:
            merged[key.replace(".features.", ".")] = torch.cat([value, state[key.replace(".features.", ".gate.")]])
        elif ".gate." not in key:
            merged[key] = value
    return merged


STSS = Converter("stss", "stss", _RULES, (r"vgg\..*",), _merge_gates)
"""What renames the authors' checkpoints."""

CONVERTERS.register_module(name=STSS.source, module=STSS)
