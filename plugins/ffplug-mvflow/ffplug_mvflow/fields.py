"""Motion vectors of one decoded frame on cells of 8 pixels, and what flow follows from them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ffplug.ops import motion_vector_flow

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELL = 8
"""Side of a cell in pixels. The blocks of all codecs that export vectors are made of such cells."""

LEAST_WEIGHT = 0.25
"""Bilinear weight from which on a cell that vectors were thrown onto counts as hit."""

INPUTS = ("motion_flow", "motion_valid", "motion_gap", "motion_size")
"""Inputs of a prior from motion vectors, on the grid of frame 1: flow to frame 2 (2×H×W, pixels), where it is known,
1 / |distance in frames to the reference|, and log2 of the block's area in pixels; all float32, 0 where not known."""


@dataclasses.dataclass(frozen=True)
class MotionField:
    """The motion vectors of one frame, by list (0: references in the past, 1: in the future).

    Attributes:
        kind: ``I``, ``P`` or ``B``.
        flow: 2×2×h×w float32; axis 0 is the list, axis 1 x and y; pixels from here to the place in the reference.
        valid: 2×h×w bool. Cells of intra blocks have no vector.
        distance: 2×h×w int64, signed distance in frames to the reference; 0 where not valid.
        span: 2×h×w float32, time to the reference in units of the time since the frame before, at least 0. At a
            constant frame rate it is the absolute distance.
        area: 2×h×w float32, area of the block in pixels; 0 where not valid.
    """

    kind: str
    flow: Tensor
    valid: Tensor
    distance: Tensor
    span: Tensor
    area: Tensor


@dataclasses.dataclass(frozen=True)
class CellFlow:
    """Flow between two successive frames on cells.

    Attributes:
        flow: 2×h×w float32 in pixels, 0 where not valid.
        valid: h×w bool.
        gap: h×w float32, 1 / span of the nearest reference that it comes from.
        size: h×w float32, log2 of the block's area.
    """

    flow: Tensor
    valid: Tensor
    gap: Tensor
    size: Tensor


def flow_to_previous(field: MotionField) -> CellFlow:
    """Flow from a frame to the one before it.

    A vector to a reference ``d`` spans away counts as ``d`` times the motion of one frame: candidates ``past / d`` and
    ``-future / d``, averaged with weights ``1 / d``.
    """
    return CellFlow(*motion_vector_flow(field.flow, field.valid, field.span, field.area, cell=CELL))


def flow_from_previous(field: MotionField) -> CellFlow:
    """Flow from the frame before to this one, on the cells of the frame before.

    Every cell of :func:`flow_to_previous` is thrown to where it came from, with bilinear weights; where weights of 0.25
    or more meet, their mean counts.
    """
    parts = field.flow, field.valid, field.span, field.area
    return CellFlow(*motion_vector_flow(*parts, thrown=True, least=LEAST_WEIGHT, cell=CELL))


def spread(cells: CellFlow, height: int, width: int) -> dict[str, NDArray[np.float32]]:
    """The inputs of a prior (:data:`INPUTS`) for frames of H×W pixels: every cell repeated over its pixels."""
    stacked = torch.cat((cells.flow, cells.valid[None], cells.gap[None], cells.size[None])).numpy()
    wide = stacked.repeat(CELL, axis=2)[:, :, None, :width]
    pixels = np.empty((len(stacked), len(wide[0]), CELL, width), np.float32)
    pixels[:] = wide
    pixels = pixels.reshape(len(stacked), -1, width)[:, :height]
    return dict(zip(INPUTS, (pixels[:2], pixels[2], pixels[3], pixels[4]), strict=True))


def no_vectors(height: int, width: int) -> dict[str, NDArray[np.float32]]:
    """The inputs of a prior for a pair without vectors."""
    shapes = ((2, height, width), *((height, width),) * 3)
    return {name: np.zeros(shape, np.float32) for name, shape in zip(INPUTS, shapes, strict=True)}


def turn(inputs: dict[str, NDArray[np.float32]], turns: int) -> dict[str, NDArray[np.float32]]:
    """Turn the inputs by quarter turns against the clock, as ``np.rot90`` does to the picture; vectors turn too."""
    turned = {name: np.rot90(value, turns, axes=(-2, -1)) for name, value in inputs.items()}
    for _ in range(turns % 4):
        x, y = turned["motion_flow"]
        turned["motion_flow"] = np.stack((y, -x))
    return {name: np.ascontiguousarray(value) for name, value in turned.items()}
