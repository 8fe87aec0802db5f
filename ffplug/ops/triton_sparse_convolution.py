"""Triton kernel of the convolution at a mask's pixels: an implicit matrix product per 8×8 tile."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sparse_convolution(
    buffers,
    channels,
    mask,
    weight,
    bias,
    slope,
    outside,
    y,
    height,
    width,
    outputs,
    TAPS: tl.constexpr,
    BUFFERS: tl.constexpr,
    BIAS: tl.constexpr,
    SLOPE: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: a tile and OUTPUTS output channels; a tile without an active pixel writes what stands outside.

    buffers: N×H×W×C each, C in channels; weight TAPS×TAPS×ΣC×O, of the buffers' type; y N×H×W×O.
    """
    tile = tl.program_id(0)
    tiles_x = tl.cdiv(width, 8)
    tiles_y = tl.cdiv(height, 8)
    place = tl.arange(0, 64)
    row = tile // tiles_x % tiles_y * 8 + place // 8
    column = tile % tiles_x * 8 + place % 8
    first = (tile // (tiles_x * tiles_y)).to(tl.int64) * height
    o = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    inside = (row < height) & (column < width)
    pixel = (first + row) * width + column
    active = tl.load(mask + pixel, mask=inside, other=0) != 0
    value = tl.zeros((64, OUTPUTS), dtype=tl.float32)
    if tl.max(active.to(tl.int32), axis=0) > 0:
        for tap in range(TAPS * TAPS):
            tap_row = row + tap // TAPS - TAPS // 2
            tap_column = column + tap % TAPS - TAPS // 2
            within = (tap_row >= 0) & (tap_row < height) & (tap_column >= 0) & (tap_column < width)
            source = (first + tap_row) * width + tap_column
            for b in tl.static_range(BUFFERS):
                for start in range(0, channels[b], DEPTH):
                    c = start + tl.arange(0, DEPTH)
                    left = tl.load(
                        buffers[b] + source[:, None] * channels[b] + c[None, :],
                        mask=within[:, None] & (c < channels[b])[None, :],
                        other=0.0,
                    )
                    right = tl.load(
                        weight + c[:, None] * outputs + o[None, :],
                        mask=(c < channels[b])[:, None] & (o < outputs)[None, :],
                        other=0.0,
                    )
                    value = tl.dot(left, right, value, input_precision=PRECISION)
                weight += channels[b] * outputs
    if BIAS:
        value += tl.load(bias + o, mask=o < outputs, other=0.0).to(tl.float32)[None, :]
    if SLOPE:
        below = tl.load(slope + o, mask=o < outputs, other=0.0).to(tl.float32)[None, :]
        value = tl.where(value > 0, value, value * below)
    around = tl.load(outside + o, mask=o < outputs, other=0.0).to(tl.float32)[None, :]
    value = tl.where(active[:, None], value, around)
    tl.store(
        y + pixel[:, None] * outputs + o[None, :],
        value.to(y.dtype.element_ty),
        mask=inside[:, None] & (o < outputs)[None, :],
    )
