"""For tests: a model file that OpenCV's face detector takes, and that finds faces where it is told to."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protocol buffer."""

    def varint(rest: int) -> bytes:
        return bytes([rest]) if rest < 128 else bytes([rest & 127 | 128]) + varint(rest >> 7)

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def write_onnx(path: Path, outputs: dict[str, np.ndarray], size: int) -> Path:
    """A model whose outputs are constants, whatever picture of ``size`` pixels squared it is given."""

    def info(name: str, shape: tuple[int, ...]) -> bytes:
        dims = b"".join(field(1, field(1, extent)) for extent in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))

    def node(kind: str, inputs: list[str], output: str) -> bytes:
        return field(1, b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind))

    graph = node("ReduceMean", ["input"], "mean") + node("Sub", ["mean", "mean"], "zero") + field(2, "made")
    for name, value in outputs.items():
        dims = b"".join(field(1, extent) for extent in value.shape)
        graph += field(5, dims + field(2, 1) + field(8, f"{name}_") + field(9, value.astype("<f4").tobytes()))
        graph += node("Add", ["zero", f"{name}_"], name) + field(12, info(name, value.shape))
    graph += field(11, info("input", (1, 3, size, size)))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13)))
    return path


def yunet_outputs(size: int, cells: dict[tuple[int, int], float]) -> dict[str, np.ndarray]:
    """What YuNet's network gives for faces in cells (column, row) of 8 pixels, larger ones by their value."""
    kinds = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    outputs = {
        f"{kind}_{stride}": np.zeros((1, (size // stride) ** 2, channels))
        for kind, channels in kinds.items()
        for stride in (8, 16, 32)
    }
    for (column, row), large in cells.items():
        place = row * (size // 8) + column
        outputs["cls_8"][0, place], outputs["obj_8"][0, place] = 1, 0.81
        outputs["bbox_8"][0, place] = [0.5, 0.25, np.log(large), np.log(large + 1)]
        outputs["kps_8"][0, place] = np.arange(10) / 10
    return outputs
