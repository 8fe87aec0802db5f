"""Converters for the checkpoints of the public code of IFRNet, RIFE and UGSP.

They compute in the order of channels that they were trained with: IFRNet in RGB, RIFE and UGSP in BGR. The converters
turn that round in the first convolutions and in what is added to a frame, so that every network here takes RGB.
"""

from __future__ import annotations

from ffplug.apis.converters import Converter
from ffplug_ugsp.registry import CONVERTERS

_NET = "network."


def _conv(theirs: str, ours: str) -> list[tuple[str, str]]:
    """A convolution with a PReLU: there they are two."""
    return [(rf"{theirs}\.0\.(weight|bias)", rf"{_NET}{ours}.\1"), (rf"{theirs}\.1\.weight", rf"{_NET}{ours}.slope")]


def _pyramid(theirs: str) -> list[tuple[str, str]]:
    return [
        rule
        for stage in range(4)
        for half in range(2)
        for rule in _conv(rf"{theirs}\.pyramid{stage + 1}\.{half}", f"encoder.stages.{stage}.{half}")
    ]


def _ifrnet() -> list[tuple[str, str]]:
    rules = _pyramid("encoder")
    names = {"conv1": "first", "conv2": "first_side", "conv3": "second", "conv4": "second_side"}
    for level in range(4):
        theirs, ours = rf"decoder{4 - level}\.convblock", f"decoders.{level}"
        rules += _conv(rf"{theirs}\.0", f"{ours}.0")
        for name, own in names.items():
            rules += _conv(rf"{theirs}\.1\.{name}", f"{ours}.1.{own}")
        rules += [
            (rf"{theirs}\.1\.conv5\.(.*)", rf"{_NET}{ours}.1.last.\1"),
            (rf"{theirs}\.1\.prelu\.weight", rf"{_NET}{ours}.1.slope"),
            (rf"{theirs}\.2\.(.*)", rf"{_NET}{ours}.2.\1"),
        ]
    return rules


for _name in ("ifrnet", "ifrnet_s", "ifrnet_l"):
    CONVERTERS.register_module(name=_name, module=Converter(_name, _name, _ifrnet()))
