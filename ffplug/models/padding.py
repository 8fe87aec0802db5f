"""Padding of frames to the sizes that a network takes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ffplug.errors import ConfigError, did_you_mean

PAD_MODES = ("sintel", "kitti")

Padding = tuple[int, int, int, int]
"""Left, right, top, bottom; in pixels."""


def padding_for(height: int, width: int, multiple: int, mode: str = "sintel", minimum: int = 0) -> Padding:
    """Return the padding that makes a frame's sides multiples of ``multiple`` and at least ``minimum``.

    Args:
        height: of the frame, in pixels.
        width: of the frame, in pixels.
        multiple: what the sides must be multiples of.
        mode: ``sintel`` splits the padding over both sides of each axis; ``kitti`` splits the columns and puts all rows
            at the bottom (RAFT's evaluation code).
        minimum: smallest side that the network takes; a multiple of ``multiple``.

    Raises:
        ConfigError: unknown mode.
    """
    if mode not in PAD_MODES:
        raise ConfigError(f"pad_mode={mode!r}: expected one of {', '.join(PAD_MODES)}{did_you_mean(mode, PAD_MODES)}")
    rows = max(-(-height // multiple) * multiple, minimum) - height
    columns = max(-(-width // multiple) * multiple, minimum) - width
    top = rows // 2 if mode == "sintel" else 0
    return columns // 2, columns - columns // 2, top, rows - top


def pad(image: Tensor, padding: Padding) -> Tensor:
    """Pad N×C×H×W with replicated edges."""
    return F.pad(image, padding, mode="replicate") if any(padding) else image


def unpad(flow: Tensor, padding: Padding) -> Tensor:
    """Undo :func:`pad` on the last two axes, as a view."""
    left, right, top, bottom = padding
    return flow[..., top : flow.shape[-2] - bottom, left : flow.shape[-1] - right]
