"""What FlowFormer's attention layers share: sine embeddings, windows of a token grid, multi-head attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.models.layers import Linear

ANGLE_STEP = 3.14 / 200
"""Angle per cell and band. The public weights were trained with this literal 3.14, not with pi."""


def sine_embedding(coordinates: Tensor, channels: int) -> Tensor:
    """Sine embedding of points (FlowFormer, section 3; frequencies grow linearly).

    Args:
        coordinates: ...×2, x then y, in cells.
        channels: size of the embedding, a multiple of 4.

    Returns:
        ...×channels: sin and cos of x in ``channels / 4`` bands each, then those of y.
    """
    bands = torch.arange(channels // 4, device=coordinates.device, dtype=coordinates.dtype) * ANGLE_STEP
    angle = coordinates[..., None] * bands
    return torch.stack((angle.sin(), angle.cos()), dim=-2).flatten(-3)


def grid_embedding(size: tuple[int, int], channels: int, like: Tensor, step: int = 1, offset: float = 0) -> Tensor:
    """Sine embedding of the cells of a grid, row by row: (height·width)×channels.

    Args:
        size: height and width of the grid.
        channels: size of the embedding, a multiple of 4.
        like: tensor on the device and of the type wanted.
        step: distance of neighbours on the grid.
        offset: coordinate of the first cell.
    """
    y, x = (
        torch.arange(length, device=like.device, dtype=at_least_float32(like.dtype)) * step + offset for length in size
    )
    cells = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    return sine_embedding(cells.flatten(0, 1), channels).to(like.dtype)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The type in which coordinates are computed beside tensors of ``dtype``: half precision would lose cells."""
    return torch.promote_types(dtype, torch.float32)


def padding_to(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Rows and columns to add at the bottom and right so that ``size`` becomes divisible by ``multiple``."""
    height, width = size
    return -height % multiple, -width % multiple


def to_windows(grid: Tensor, side: int) -> Tensor:
    """Cut a grid into square windows, zero-padded at the bottom and right.

    Args:
        grid: N×h×w×K×C, K tokens in every cell.
        side: side of a window in cells.

    Returns:
        (N·windows)×K×side²×C, windows row by row.
    """
    rows, columns = padding_to(grid.shape[1:3], side)
    if rows or columns:
        grid = F.pad(grid, (0, 0, 0, 0, 0, columns, 0, rows))
    grid = grid.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # N×h'×side×w'×side×K×C
    return grid.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(0, 2)


def from_windows(windows: Tensor, size: tuple[int, int], side: int) -> Tensor:
    """Undo :func:`to_windows`: (N·windows)×K×side²×C to N×h×w×K×C, with ``size`` = (h, w) and the padding cut off."""
    height, width = size
    rows, columns = padding_to(size, side)
    grid = windows.unflatten(2, (side, side)).unflatten(0, (-1, (height + rows) // side, (width + columns) // side))
    grid = grid.permute(0, 1, 4, 2, 5, 3, 6).flatten(3, 4).flatten(1, 2)  # N×(h+rows)×(w+columns)×K×C
    return grid[:, :height, :width]


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention, scaled by the root of the head's size: B×L×C, B×M×C, B×M×C -> B×L×C."""
    query, key, value = (tensor.unflatten(2, (heads, -1)).transpose(1, 2) for tensor in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def perceptron(inputs: int, hidden: int, outputs: int | None = None) -> nn.Sequential:
    """Two linear layers with an exact GELU between them: ``inputs`` -> ``hidden`` -> ``outputs`` (or ``inputs``)."""
    # The first layer applies the GELU to its result while it is in the cache; the second keeps the index of old files.
    return nn.Sequential(
        Linear(inputs, hidden, activation="gelu"), nn.Identity(), Linear(hidden, inputs if outputs is None else outputs)
    )
