"""Correlation between the features of two frames: the pyramid, and the look-up of a window in every level."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.ops.contract import Op, register_op

Sizes = tuple[tuple[int, int], ...]


def pool_levels(feature: Tensor, levels: int) -> tuple[Tensor, Sizes]:
    """Average-pool features to a pyramid and lay all levels side by side.

    Averaging the features of frame 2 gives the same pyramid as averaging the volume (RAFT, section 3.2), for the
    product is linear, at a fraction of the memory traffic. A level that would be empty is left out of the data, and
    reads as zero.

    Args:
        feature: N×C×h×w.
        levels: number of levels, the first of full size, each further one half of the one before (rounded down).

    Returns:
        N×C×T, T the number of cells of all levels, and each level's (height, width).
    """
    flat, sizes = [], []
    for level in range(levels):
        if level:
            height, width = feature.shape[-2:]
            if min(height, width) < 2:
                feature = feature.new_zeros(*feature.shape[:2], height // 2, width // 2)
            else:
                feature = F.avg_pool2d(feature, 2)
        flat.append(feature.flatten(2))
        sizes.append((feature.shape[-2], feature.shape[-1]))
    return torch.cat(flat, dim=2) if levels > 1 else flat[0], tuple(sizes)


@dataclasses.dataclass
class _Window:
    """Where the integer neighbours of a window lie in one level, and how to blend them."""

    index: Tensor  # M×K×K, into the level's cells; first window axis x, second y
    inside: Tensor  # M×K×K, bool
    fraction: Tensor  # M×2, x then y


def _window(target: Tensor, level: int, size: tuple[int, int], radius: int) -> _Window:
    height, width = size
    centre = target / 2**level
    corner = centre.floor()
    steps = torch.arange(-radius, radius + 2, device=target.device)
    cells = corner.long()[..., None] + steps  # M×2×K
    x, y = cells[:, 0], cells[:, 1]
    inside = ((x >= 0) & (x < width))[:, :, None] & ((y >= 0) & (y < height))[:, None, :]
    index = x.clamp(0, max(width - 1, 0))[:, :, None] + (y.clamp(0, max(height - 1, 0)) * width)[:, None, :]
    return _Window(index, inside, centre - corner)


def _blend(values: Tensor, fraction: Tensor) -> Tensor:
    """Bilinear blend of M×K×K integer neighbours, all of which share one fraction, to M×(K-1)×(K-1)."""
    values = torch.lerp(values[:, :-1], values[:, 1:], fraction[:, 0, None, None])
    return torch.lerp(values[:, :, :-1], values[:, :, 1:], fraction[:, 1, None, None])


def _targets(flow: Tensor) -> Tensor:
    """Cell coordinates that low-resolution flow points at: N×2×h×w -> (N·h·w)×2, x then y."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
    return torch.stack((flow[:, 0] + x, flow[:, 1] + y), dim=-1).reshape(-1, 2)


def _as_map(windows: list[Tensor], flow: Tensor) -> Tensor:
    """Levels of (N·h·w)×D×D -> N×(L·D·D)×h×w, a view whose channels are contiguous in memory."""
    count, _, height, width = flow.shape
    flat = torch.cat([window.flatten(1) for window in windows], dim=1) if len(windows) > 1 else windows[0].flatten(1)
    return flat.view(count, height, width, -1).permute(0, 3, 1, 2)


@register_op
class CorrLookup(Op):
    """Bilinear look-up of a (2r+1)² window in every level of a correlation pyramid (RAFT, section 3.2).

    Channel ``l·(2r+1)² + (dx+r)·(2r+1) + (dy+r)`` holds level l at ``(x/2^l + dx, y/2^l + dy)``; outside a level the
    value is zero. Coordinates get no gradient, as in RAFT, which detaches them.

    Args (of the call):
        volume: N×(h·w)×T, for each cell of frame 1 the correlation with every cell of all levels of frame 2.
        sizes: (height, width) of each level; their products sum up to T.
        flow: low-resolution flow N×2×h×w, in cells.
        radius: r.

    Returns:
        N×(L·(2r+1)²)×h×w, a view with contiguous channels.
    """

    name = "corr_lookup"

    def reference(self, volume: Tensor, sizes: Sizes, flow: Tensor, radius: int) -> Tensor:  # noqa: D102
        target = _targets(flow.detach().to(volume.dtype))
        side = 2 * radius + 2
        rows = volume.reshape(-1, volume.shape[-1])
        result, start = [], 0
        for level, size in enumerate(sizes):
            cells = size[0] * size[1]
            if cells == 0:
                result.append(rows.new_zeros(rows.shape[0], side - 1, side - 1))
                continue
            window = _window(target, level, size, radius)
            values = rows.gather(1, (window.index + start).flatten(1)).view(-1, side, side)
            result.append(_blend(values * window.inside, window.fraction))
            start += cells
        return _as_map(result, flow)


@register_op
class CorrLookupOnDemand(Op):
    """The same look-up from the features themselves, with memory O(h·w·C) in place of O((h·w)²).

    Args (of the call):
        feature1: N×C×h×w, already scaled.
        levels: N×C×T, all levels of frame 2 side by side (see :func:`pool_levels`).
        sizes: (height, width) of each level.
        flow: low-resolution flow N×2×h×w, in cells.
        radius: r.
        chunk: how many cells of frame 1 are worked on at a time.

    Returns:
        As :class:`CorrLookup`.
    """

    name = "corr_lookup_on_demand"

    def reference(  # noqa: D102
        self, feature1: Tensor, levels: Tensor, sizes: Sizes, flow: Tensor, radius: int, chunk: int = 1024
    ) -> Tensor:
        count, channels = feature1.shape[:2]
        query = feature1.flatten(2).transpose(1, 2).reshape(-1, channels)
        # Samples follow one another in the rows of the table, so that one index serves the batch.
        table = levels.transpose(1, 2).reshape(-1, channels)
        target = _targets(flow.detach().to(feature1.dtype))
        sample = torch.arange(count, device=flow.device).repeat_interleave(query.shape[0] // count) * levels.shape[-1]
        side = 2 * radius + 2
        result, start = [], 0
        for level, size in enumerate(sizes):
            if size[0] * size[1] == 0:
                result.append(query.new_zeros(query.shape[0], side - 1, side - 1))
                continue
            parts = []
            for part in torch.arange(query.shape[0], device=flow.device).split(chunk):
                window = _window(target[part], level, size, radius)
                index = (window.index + start + sample[part, None, None]).flatten(1)
                values = torch.bmm(table[index], query[part, :, None]).view(-1, side, side)
                parts.append(_blend(values * window.inside, window.fraction))
            result.append(torch.cat(parts))
            start += size[0] * size[1]
        return _as_map(result, flow)


corr_lookup = CorrLookup()
corr_lookup_on_demand = CorrLookupOnDemand()
