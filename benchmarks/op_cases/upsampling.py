"""Convex upsampling of 1/8-resolution flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import BenchCase

from ffplug.ops import convex_upsample


def unfolded(flow: torch.Tensor, logits: torch.Tensor, factor: int) -> torch.Tensor:
    """RAFT's published way: softmax and unfold, with a tensor of all nine products."""
    count, _, height, width = flow.shape
    mask = torch.softmax(logits.reshape(count, 1, 9, factor, factor, height, width), dim=2)
    patch = F.unfold(factor * flow, 3, padding=1).view(count, 2, 9, 1, 1, height, width)
    fine = torch.sum(mask * patch, dim=2).permute(0, 1, 4, 2, 5, 3)
    return fine.reshape(count, 2, factor * height, factor * width)


def _case(label: str, height: int, width: int, backward: bool = False) -> BenchCase:
    cells = height * width
    return BenchCase(
        op=convex_upsample,
        label=label,
        # The mask head gives channels last.
        make=lambda make: (make(1, 2, height, width), make(1, height, width, 576).permute(0, 3, 1, 2), 8),
        bytes=4 * cells * (576 + 2 + 128) * (2 if backward else 1),
        flops=cells * 64 * (9 * 8 + 36) * (2 if backward else 1),
        rival=("unfold", unfolded),
        backward=backward,
    )


CASES = [
    _case("128x128", 16, 16),
    _case("436x1024", 55, 128),
    _case("1080p", 135, 240),
    _case("4K", 270, 480),
    _case("436x1024 with gradient", 55, 128, backward=True),
]
