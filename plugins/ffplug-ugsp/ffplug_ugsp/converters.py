"""Converters for the checkpoints of the public code of IFRNet, RIFE and UGSP.

They compute in the order of channels that they were trained with: IFRNet in RGB, RIFE and UGSP in BGR. The converters
turn that round in the first convolutions and in what is added to a frame, so that every network here takes RGB.
"""

from __future__ import annotations

from ffplug.apis.converters import Converter
from ffplug.apis.converters.rename import StateDict
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


def _block(theirs: str, ours: str, depth: int, finest: bool) -> list[tuple[str, str]]:
    """A level of UGSP's decoder."""
    rules = _conv(rf"{theirs}\.conv_head", f"{ours}.head")
    for place in range(depth):
        rules += [
            (rf"{theirs}\.convblock_l\.{place}\.(.*)", rf"{_NET}{ours}.layers.{place}.\1"),
            (rf"{theirs}\.prelu_l\.{place}\.weight", rf"{_NET}{ours}.layers.{place}.slope"),
        ]
    rules.append((rf"{theirs}\.conv_last\.(.*)", rf"{_NET}{ours}.last.\1"))
    if finest:
        rules.append((rf"{theirs}\.prelu_last\.weight", rf"{_NET}{ours}.last.slope"))
        rules.append((rf"{theirs}\.dconv_last\.(.*)", rf"{_NET}{ours}.up.\1"))
    else:
        rules.append((rf"{theirs}\.conv_mask\.(.*)", rf"{_NET}{ours}.keep.\1"))
    return rules


def _refinement(ours: str) -> list[tuple[str, str]]:
    rules = []
    for stage in range(4):
        for half in range(2):
            rules += _conv(rf"contextnet\.conv{stage + 1}\.conv{half + 1}", f"{ours}.context.stages.{stage}.{half}")
            rules += _conv(rf"unet\.down{stage}\.conv{half + 1}", f"{ours}.down.{stage}.{half}")
        rules += _conv(rf"unet\.up{stage}", f"{ours}.up.{stage}")
    return [*rules, (r"unet\.conv\.(.*)", rf"{_NET}{ours}.last.\1")]


def _ugsp() -> list[tuple[str, str]]:
    rules = _pyramid("context")
    for level, name in enumerate(("first", "1", "2", "final")):
        rules += _block(f"glblock_{name}", f"blocks.{level}", 4 if level == 3 else 5, level == 3)
    return rules


def _turn(state: StateDict, inputs: dict[str, tuple[tuple[int, int], ...]], outputs: dict[str, int]) -> StateDict:
    """Make a network for BGR one for RGB.

    Args:
        state: of the network.
        inputs: by name of a weight O×C×..., the ranges of input channels that are colours of frames.
        outputs: by name of a layer, the first of three output channels that are colours.
    """
    turned = dict(state)
    for key, ranges in inputs.items():
        order = list(range(state[key].shape[1]))
        for start, count in ranges:
            for frame in range(start, start + 3 * count, 3):
                order[frame : frame + 3] = order[frame : frame + 3][::-1]
        turned[key] = state[key][:, order].contiguous()
    for key, start in outputs.items():
        order = [*range(start), start + 2, start + 1, start]
        transposed = state[f"{key}.weight"].shape[1] == len(order) and state[f"{key}.weight"].shape[2] == 4
        weight = state[f"{key}.weight"]
        turned[f"{key}.weight"] = (weight[:, order] if transposed else weight[order]).contiguous()
        turned[f"{key}.bias"] = state[f"{key}.bias"][order].contiguous()
    return turned


def _turn_ugsp(state: StateDict) -> StateDict:
    first = {f"{_NET}encoder.stages.0.0.weight": ((0, 1),)}
    if f"{_NET}refinement.last.weight" not in state:
        return _turn(state, first, {f"{_NET}blocks.3.up": 5})
    return _turn(state, first | _refinement_inputs("refinement"), {f"{_NET}refinement.last": 0})


def _refinement_inputs(ours: str) -> dict[str, tuple[tuple[int, int], ...]]:
    return {f"{_NET}{ours}.context.stages.0.0.weight": ((0, 1),), f"{_NET}{ours}.down.0.0.weight": ((0, 4),)}


_TEACHER = _block("glblock_final_teacher", "teacher", 4, True)
CONVERTERS.register_module(name="ugsp", module=Converter("ugsp", "ugsp", _ugsp(), adapt=_turn_ugsp))
CONVERTERS.register_module(
    name="ugsp_refine",
    module=Converter("ugsp_refine", "ugsp_refine", [*_ugsp(), *_TEACHER, *_refinement("refinement")], adapt=_turn_ugsp),
)


def _rife() -> list[tuple[str, str]]:
    rules = _refinement("refinement")
    for theirs, ours in (
        ("block0", "blocks.0"),
        ("block1", "blocks.1"),
        ("block2", "blocks.2"),
        ("block_tea", "teacher"),
    ):
        for place in range(2):
            rules += _conv(rf"{theirs}\.conv0\.{place}", f"{ours}.shrink.{place}")
        for place in range(8):
            rules += _conv(rf"{theirs}\.convblock\.{place}", f"{ours}.layers.{place}")
        rules.append((rf"{theirs}\.lastconv\.(.*)", rf"{_NET}{ours}.last.\1"))
    return rules


def _turn_rife(state: StateDict) -> StateDict:
    plane = state[f"{_NET}blocks.0.shrink.0.weight"].shape[1] - 6
    warped = (6 + plane, 2)
    ranges = {"blocks.0": ((0, 2),), "blocks.1": ((0, 2), warped), "blocks.2": ((0, 2), warped)}
    ranges["teacher"] = ((0, 2), warped, (13 + plane, 1))
    inputs = {f"{_NET}{name}.shrink.0.weight": colours for name, colours in ranges.items()}
    return _turn(state, inputs | _refinement_inputs("refinement"), {f"{_NET}refinement.last": 0})


for _name in ("rife", "rife_m"):
    CONVERTERS.register_module(name=_name, module=Converter(_name, _name, _rife(), adapt=_turn_rife))
