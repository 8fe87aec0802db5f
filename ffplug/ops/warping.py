"""Warping by flow: pictures backward, and a flow along itself to start the next pair of a video."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.ops.contract import Op, register_op


@register_op
class BackwardWarp(Op):
    """Sample ``image`` where the flow points: ``out(p) = image(p + flow(p))``, bilinear.

    Args (of the call):
        image: N×C×H×W.
        flow: N×2×H×W in pixels.
        padding: ``zeros`` or ``border`` for targets outside the image.

    Returns:
        N×C×H×W.
    """

    name = "backward_warp"

    def reference(self, image: Tensor, flow: Tensor, padding: str = "zeros") -> Tensor:  # noqa: D102
        height, width = flow.shape[-2:]
        x = flow[:, 0] + torch.arange(width, device=flow.device, dtype=flow.dtype)
        y = flow[:, 1] + torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
        # Pixel centres at (2i + 1) / size - 1 need no division by (size - 1), which is zero for one pixel.
        grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
        return F.grid_sample(image, grid.to(image.dtype), padding_mode=padding, align_corners=False)


@register_op
class ForwardWarpFlow(Op):
    """Carry a flow along itself: every cell takes the flow of the nearest moved cell (RAFT's warm start).

    Cells that leave the frame are dropped; a sample of which every cell leaves gets zero flow. No gradient.

    Args (of the call):
        flow: N×2×h×w, in cells.

    Returns:
        N×2×h×w.
    """

    name = "forward_warp_flow"

    def reference(self, flow: Tensor) -> Tensor:  # noqa: D102
        flow = flow.detach()
        height, width = flow.shape[-2:]
        y, x = torch.meshgrid(
            torch.arange(height, device=flow.device, dtype=flow.dtype),
            torch.arange(width, device=flow.device, dtype=flow.dtype),
            indexing="ij",
        )
        grid = torch.stack((x, y), dim=-1).view(-1, 2)
        result = torch.zeros_like(flow)
        for source, target in zip(flow, result, strict=True):
            values = source.flatten(1).T
            moved = grid + values
            limit = grid.new_tensor((width, height))
            kept = ((moved > 0) & (moved < limit)).all(dim=1)
            if kept.any():
                moved, values = moved[kept], values[kept]
                nearest = torch.cat([torch.cdist(part, moved).argmin(dim=1) for part in grid.split(2048)])
                target.copy_(values[nearest].T.view(2, height, width))
        return result


backward_warp = BackwardWarp()
forward_warp_flow = ForwardWarpFlow()
