"""Correlation between the features of two frames: the pyramid, and the look-up of a window in every level."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.ops.build import CSRC
from ffplug.ops.contract import Op, register_op
from ffplug.ops.cuda import CudaSource
from ffplug.ops.layout import pixel_rows
from ffplug.ops.native import NativeSource

_native = NativeSource(CSRC / "correlation.cpp")
_cuda = CudaSource(CSRC / "correlation.cu")
_MAX_LEVELS, _MAX_RADIUS = 8, 7  # what the kernels' fixed arrays hold

Sizes = tuple[tuple[int, int], ...]


def pool_levels(feature: Tensor, levels: int) -> tuple[Tensor, Sizes]:
    """Average-pool features to a pyramid and lay all levels after one another, a row for each cell.

    Averaging the features of frame 2 gives the same pyramid as averaging the volume (RAFT, section 3.2), for the
    product is linear, at a fraction of the memory traffic. A level that would be empty is left out of the data, and
    reads as zero.

    Args:
        feature: N×C×h×w.
        levels: number of levels, the first of full size, each further one half of the one before (rounded down).

    Returns:
        N×T×C, T the number of cells of all levels, and each level's (height, width).
    """
    flat, sizes = [], []
    for level in range(levels):
        if level:
            height, width = feature.shape[-2:]
            if min(height, width) < 2:
                feature = feature.new_zeros(*feature.shape[:2], height // 2, width // 2)
            else:
                feature = F.avg_pool2d(feature, 2)
        flat.append(feature.permute(0, 2, 3, 1).flatten(1, 2))
        sizes.append((feature.shape[-2], feature.shape[-1]))
    return torch.cat(flat, dim=1) if levels > 1 else flat[0], tuple(sizes)


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
    return flat.view(count, height, width, flat.shape[-1]).permute(0, 3, 1, 2)


def _empty_map(flow: Tensor, sizes: Sequence[int], radius: int) -> Tensor:
    count, _, height, width = flow.shape
    channels = len(sizes) // 2 * (2 * radius + 1) ** 2
    return flow.new_empty(count, height, width, channels).permute(0, 3, 1, 2)


def _pairs(sizes: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(sizes[::2], sizes[1::2], strict=True))


def _check(name: str, flow: Tensor, sizes: Sequence[int], radius: int, cells: int) -> None:
    if flow.ndim != 4 or flow.shape[1] != 2:
        raise ValueError(f"{name}: flow {tuple(flow.shape)}: expected N×2×h×w")
    if radius < 0 or sum(height * width for height, width in _pairs(sizes)) != cells:
        raise ValueError(f"{name}: sizes {_pairs(sizes)}, radius {radius}: expected levels of {cells} cells together")


@register_op
class CorrLookup(Op):
    """Bilinear look-up of a (2r+1)² window in every level of a correlation pyramid (RAFT, section 3.2).

    Channel ``l·(2r+1)² + (dx+r)·(2r+1) + (dy+r)`` holds level l at ``(x/2^l + dx, y/2^l + dy)``; outside a level the
    value is zero. RAFT's loop detaches the coordinates; here they have their gradient.

    Args (of the call):
        volume: N×(h·w)×T, for each cell of frame 1 the correlation with every cell of all levels of frame 2.
        sizes: (height, width) of each level; their products sum up to T.
        flow: low-resolution flow N×2×h×w, in cells.
        radius: r.

    Returns:
        N×(L·(2r+1)²)×h×w, a view with contiguous channels.
    """

    name = "corr_lookup"
    schema = "(Tensor volume, int[] sizes, Tensor flow, int radius) -> Tensor"
    differentiable = ("volume", "flow")

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        return make(2, 12, 14), ((3, 4), (1, 2)), make(2, 2, 3, 4, scale=3), 1

    def prepare(self, volume: Tensor, sizes: Sizes | Sequence[int], flow: Tensor, radius: int) -> tuple:  # noqa: D102
        flat = _flat(sizes)
        _check("corr_lookup", flow, flat, radius, volume.shape[-1])
        if volume.ndim != 3 or volume.shape[:2] != (flow.shape[0], flow.shape[2] * flow.shape[3]):
            raise ValueError(
                f"corr_lookup: volume {tuple(volume.shape)} for flow {tuple(flow.shape)}: expected N×(h·w)×T"
            )
        return volume, flat, flow.to(volume.dtype), int(radius)

    def reference(self, volume: Tensor, sizes: Sequence[int], flow: Tensor, radius: int) -> Tensor:  # noqa: D102
        target = _targets(flow)
        side = 2 * radius + 2
        rows = volume.reshape(-1, volume.shape[-1])
        result, start = [], 0
        for level, size in enumerate(_pairs(sizes)):
            cells = size[0] * size[1]
            if cells == 0:
                result.append(rows.new_zeros(rows.shape[0], side - 1, side - 1))
                continue
            window = _window(target, level, size, radius)
            values = rows.gather(1, (window.index + start).flatten(1)).view(-1, side, side)
            result.append(_blend(values * window.inside, window.fraction))
            start += cells
        return _as_map(result, flow)

    def fake(self, volume: Tensor, sizes: Sequence[int], flow: Tensor, radius: int) -> Tensor:  # noqa: D102
        return _empty_map(flow, sizes, radius)

    def supports(self, backend: str, volume: Tensor, sizes: Sequence[int], flow: Tensor, radius: int) -> bool:
        """The kernels take up to 8 levels and radius 7."""
        return len(sizes) // 2 <= _MAX_LEVELS and radius <= _MAX_RADIUS

    def cpp(self, volume: Tensor, sizes: Sequence[int], flow: Tensor, radius: int) -> Tensor:
        """A gather of the integer neighbours and one blend a level, the next cells' rows fetched ahead."""
        out = _empty_map(flow, sizes, radius)
        tensors = (volume.contiguous(), flow.contiguous(), torch.tensor(sizes), out)
        _native.call("corr_lookup", *tensors, *_shape(flow), len(sizes) // 2, radius)
        return out

    def cpp_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Every cell owns its row of the volume, so no two threads write to one place."""
        volume, sizes, flow, radius = args
        found = _empty_like_needed(needs, (volume, flow))
        tensors = (pixel_rows(grads[0]), volume.contiguous(), flow.contiguous(), torch.tensor(sizes), *found)
        _native.call("corr_lookup_backward", *tensors, *_shape(flow), len(sizes) // 2, radius)
        return found

    def cuda(self, volume: Tensor, sizes: Sequence[int], flow: Tensor, radius: int) -> Tensor:
        """One thread an output."""
        out = _empty_map(flow, sizes, radius)
        tensors = (volume.contiguous(), flow.contiguous(), torch.tensor(sizes, device=flow.device), out)
        shape = _cuda_shape(flow, sizes, radius, volume.shape[-1])
        _cuda.launch_threads("corr_lookup", out.numel(), *tensors, *shape)
        return out

    def cuda_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """One thread an integer neighbour for the volume, one warp a cell for flow; no atomics."""
        volume, sizes, flow, radius = args
        grad, flow, table = pixel_rows(grads[0]), flow.contiguous(), torch.tensor(sizes, device=flow.device)
        shape, jobs = _cuda_shape(flow, sizes, radius, volume.shape[-1]), flow.numel() // 2
        grad_volume = torch.zeros_like(volume, memory_format=torch.contiguous_format) if needs[0] else None
        grad_flow = flow.new_empty(flow.shape) if needs[1] else None
        if needs[0]:
            threads = jobs * len(sizes) // 2 * (2 * radius + 2) ** 2
            _cuda.launch_threads("corr_lookup_volume_backward", threads, grad, flow, table, grad_volume, *shape)
        if needs[1]:
            tensors = (grad, volume.contiguous(), flow, table, grad_flow)
            _cuda.launch_threads("corr_lookup_flow_backward", jobs * 32, *tensors, *shape)
        return grad_volume, grad_flow


@register_op
class CorrLookupOnDemand(Op):
    """The same look-up from the features themselves, with memory O(h·w·C) in place of O((h·w)²).

    Args (of the call):
        query: N×(h·w)×C, the features of frame 1, a row for each cell, already scaled.
        table: N×T×C, all levels of frame 2 after one another (see :func:`pool_levels`).
        sizes: (height, width) of each level.
        flow: low-resolution flow N×2×h×w, in cells.
        radius: r.

    Returns:
        As :class:`CorrLookup`.
    """

    name = "corr_lookup_on_demand"
    schema = "(Tensor query, Tensor table, int[] sizes, Tensor flow, int radius) -> Tensor"
    differentiable = ("query", "table", "flow")
    nondeterministic = frozenset({"cuda_backward"})
    tolerance = 3e-5

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        return make(1, 6, 3), make(1, 7, 3), ((2, 3), (1, 1)), make(1, 2, 2, 3, scale=3), 1

    def prepare(  # noqa: D102
        self, query: Tensor, table: Tensor, sizes: Sizes | Sequence[int], flow: Tensor, radius: int
    ) -> tuple:
        flat = _flat(sizes)
        _check("corr_lookup_on_demand", flow, flat, radius, table.shape[-2])
        cells = (flow.shape[0], flow.shape[2] * flow.shape[3])
        if query.ndim != 3 or query.shape[:2] != cells or table.shape[::2] != query.shape[::2]:
            raise ValueError(
                f"corr_lookup_on_demand: query {tuple(query.shape)}, table {tuple(table.shape)}, flow "
                f"{tuple(flow.shape)}: expected N×(h·w)×C, N×T×C and N×2×h×w"
            )
        return query, table, flat, flow.to(query.dtype), int(radius)

    def reference(  # noqa: D102
        self, query: Tensor, table: Tensor, sizes: Sequence[int], flow: Tensor, radius: int
    ) -> Tensor:
        count, cells, channels = query.shape
        rows = query.reshape(-1, channels)
        # Samples follow one another in the rows of the table, so that one index serves the batch.
        flat = table.reshape(-1, channels)
        target = _targets(flow)
        sample = torch.arange(count, device=flow.device).repeat_interleave(cells) * table.shape[1]
        side = 2 * radius + 2
        result, start = [], 0
        for level, size in enumerate(_pairs(sizes)):
            if size[0] * size[1] == 0:
                result.append(rows.new_zeros(rows.shape[0], side - 1, side - 1))
                continue
            parts = []
            for part in torch.arange(rows.shape[0], device=flow.device).split(_CHUNK):
                window = _window(target[part], level, size, radius)
                index = (window.index + start + sample[part, None, None]).flatten(1)
                values = torch.bmm(flat[index], rows[part, :, None]).view(-1, side, side)
                parts.append(_blend(values * window.inside, window.fraction))
            result.append(torch.cat(parts) if parts else rows.new_empty(0, side - 1, side - 1))
            start += size[0] * size[1]
        return _as_map(result, flow)

    def fake(  # noqa: D102
        self, query: Tensor, table: Tensor, sizes: Sequence[int], flow: Tensor, radius: int
    ) -> Tensor:
        return _empty_map(flow, sizes, radius)

    def supports(self, backend: str, query: Tensor, table: Tensor, sizes: Sequence[int], *rest: object) -> bool:
        """The kernels take up to 8 levels and radius 7."""
        return len(sizes) // 2 <= _MAX_LEVELS and rest[1] <= _MAX_RADIUS

    def cpp(self, query: Tensor, table: Tensor, sizes: Sequence[int], flow: Tensor, radius: int) -> Tensor:
        """Products of two adjacent cells' queries with the neighbours that they share."""
        out = _empty_map(flow, sizes, radius)
        tensors = (query.contiguous(), table.contiguous(), flow.contiguous(), torch.tensor(sizes), out)
        shape = (*_shape(flow), query.shape[-1], len(sizes) // 2, radius)
        _native.call("corr_lookup_on_demand", *tensors, *shape)
        return out

    def cpp_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor | None, ...]:
        """A thread takes a slice of the channels, so no two write to one place."""
        query, table, sizes, flow, radius = args
        found = _empty_like_needed(needs, (query, table, flow))
        levels = len(sizes) // 2
        scratch = query.new_empty(*query.shape[:2], levels, (2 * radius + 2) ** 2)
        tensors = (pixel_rows(grads[0]), query.contiguous(), table.contiguous(), flow.contiguous(), torch.tensor(sizes))
        shape = (*_shape(flow), query.shape[-1], levels, radius)
        _native.call("corr_lookup_on_demand_backward", *tensors, *found, scratch, *shape)
        return found

    def cuda(self, query: Tensor, table: Tensor, sizes: Sequence[int], flow: Tensor, radius: int) -> Tensor:
        """One warp a cell and level, the channels over its lanes."""
        out = _empty_map(flow, sizes, radius)
        tensors = (query.contiguous(), table.contiguous(), flow.contiguous(), torch.tensor(sizes, device=flow.device))
        _, *shape = _cuda_shape(flow, sizes, radius, table.shape[1], query.shape[-1])
        blocks = flow.numel() // 2 * (len(sizes) // 2)
        _cuda.launch("corr_lookup_on_demand", blocks, 32, *tensors, out, *shape)
        return out

    def cuda_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor | None, ...]:
        """One warp a cell; the table's gradient is summed by atomics."""
        query, table, sizes, flow, radius = args
        grad, query, table, flow = pixel_rows(grads[0]), query.contiguous(), table.contiguous(), flow.contiguous()
        levels = torch.tensor(sizes, device=flow.device)
        shape = _cuda_shape(flow, sizes, radius, table.shape[1], query.shape[-1])
        grad_query = torch.empty_like(query) if needs[0] else None
        grad_table = torch.zeros_like(table) if needs[1] else None
        grad_flow = torch.empty_like(flow) if needs[2] else None
        cells = flow.numel() // 2
        if needs[0] or needs[1]:
            tensors = (grad, query, table, flow, levels, grad_query, grad_table)
            _cuda.launch_threads("corr_lookup_on_demand_backward", cells * 32, *tensors, *shape)
        if needs[2]:
            tensors = (grad, query, table, flow, levels, grad_flow)
            _cuda.launch("corr_lookup_on_demand_flow_backward", cells, 32, *tensors, *shape[1:])
        return grad_query, grad_table, grad_flow


_CHUNK = 1024  # cells of frame 1 that the reference works on at a time


def _flat(sizes: Sizes | Sequence[int]) -> list[int]:
    return [int(value) for size in sizes for value in (size if isinstance(size, Sequence) else (size,))]


def _shape(flow: Tensor) -> tuple[int, int, int]:
    return flow.shape[0], flow.shape[2], flow.shape[3]


def _cuda_shape(flow: Tensor, sizes: Sequence[int], radius: int, cells: int, channels: int | None = None) -> tuple:
    count, height, width = _shape(flow)
    return count, height * width, width, *(() if channels is None else (channels,)), len(sizes) // 2, radius, cells


def _empty_like_needed(needs: Sequence[bool], tensors: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    return tuple(t.new_empty(t.shape) if need else None for need, t in zip(needs, tensors, strict=True))


corr_lookup = CorrLookup()
corr_lookup_on_demand = CorrLookupOnDemand()
