"""Convex upsampling of low-resolution flow."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ffplug.ops.contract import Op, register_op


@register_op
class ConvexUpsample(Op):
    """Each fine pixel is a convex combination of the 3×3 coarse neighbours (RAFT, section 3.3).

    Args (of the call):
        flow: low-resolution flow N×2×h×w, in cells.
        logits: N×(9·factor²)×h×w; channel ``(k·factor + i)·factor + j`` weighs neighbour k (row-major 3×3, zero
            outside) for the fine pixel (i, j) of a cell, before the softmax over k.
        factor: ratio of the resolutions.

    Returns:
        Flow N×2×(factor·h)×(factor·w), in fine pixels.
    """

    name = "convex_upsample"

    def reference(self, flow: Tensor, logits: Tensor, factor: int = 8) -> Tensor:  # noqa: D102
        count, channels, height, width = flow.shape
        weight = logits.float().view(count, 1, 9, factor * factor, height, width).softmax(dim=2)
        patch = F.unfold(factor * flow.float(), 3, padding=1).view(count, channels, 9, 1, height, width)
        fine = (weight * patch).sum(dim=2)
        fine = fine.view(count, channels, factor, factor, height, width).permute(0, 1, 4, 2, 5, 3)
        return fine.reshape(count, channels, factor * height, factor * width)


convex_upsample = ConvexUpsample()
