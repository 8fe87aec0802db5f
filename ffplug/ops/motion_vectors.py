"""A codec's motion vectors on a grid of cells, the pictures that they refer to, and the flow that follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.ops.build import CSRC
from ffplug.ops.contract import Op, register_op
from ffplug.ops.cuda import CudaSource
from ffplug.ops.native import NativeSource
from ffplug.ops.splatting import splat_sum
from ffplug.ops.warping import backward_warp

_native = NativeSource(CSRC / "motion_vectors.cpp")
_cuda = CudaSource(CSRC / "motion_vectors.cu")

COLUMNS = ("frame", "source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
"""Columns of a motion-vector table, named as FFmpeg's ``AVMotionVector`` names them."""


@register_op
class MotionVectorRasterize(Op):
    """Spread the motion vectors of decoded frames over a grid of cells, one field for each reference list.

    A vector's block covers the pixels ``dst - size // 2 .. dst + (size + 1) // 2 - 1``; its left and upper edge are
    rounded down to the grid, cells outside the frame are dropped (codecs code whole macroblocks). Where blocks of one
    list overlap, the later row of the table wins. List 0 holds references in the past (source < 0), list 1 those in the
    future (source > 0).

    Args (of the call):
        table: M×9 integers, the columns of :data:`COLUMNS`; see :func:`motion_vector_table`.
        frames: number of frames N.
        height: of the frames in pixels.
        width: of the frames in pixels.
        distances: N×2 integers, signed distance in frames to each list's reference, see :func:`reference_distances`;
            by default -1 and 1.
        cell: side of a cell in pixels, which divides all block sizes.

    Returns:
        flow: N×2×2×h×w float32 with h and w the frame's size in cells, rounded up; axis 1 is the list, axis 2 x and y.
            ``motion / motion_scale``: pixels from here to the position in the reference; 0 where not valid.
        valid: N×2×h×w bool, whether a vector covers the cell.
        distance: N×2 int64, the given distances, 0 where a frame has no vector of that list.
        size: N×2×2×h×w int16, width and height in pixels of the block on the cell; 0 where not valid.

    Raises:
        ValueError: a row with a frame out of range, source 0, a size that is not a positive multiple of the cell, or a
            scale that is not positive; the message names the first such row. Under ``torch.compile`` values are not
            looked at: such rows are dropped.
    """

    name = "motion_vector_rasterize"
    schema = (
        "(Tensor table, int frames, int height, int width, Tensor distances, int cell)"
        " -> (Tensor, Tensor, Tensor, Tensor)"
    )
    tolerance = 0.0

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        columns = [make.integers(9, high=2), make.integers(9, high=2) * 2 - 1]  # frame, and which reference
        columns += [make.integers(9, low=1, high=3) * 8 for _ in range(2)]  # width and height of the block
        columns += [make.integers(9, low=-12, high=30) for _ in range(2)]  # where it lies
        columns += [make.integers(9, low=-200, high=200) for _ in range(2)]  # the vector
        columns += [make.integers(9, low=1, high=9)]  # its scale
        return torch.stack(columns, dim=1), 2, 21, 19, make.integers(2, 2, low=-3, high=4)

    def prepare(  # noqa: D102
        self, table: Tensor, frames: int, height: int, width: int, distances: Tensor | None = None, cell: int = 8
    ) -> tuple:
        if table.dim() != 2 or table.shape[1] != len(COLUMNS) or table.is_floating_point():
            raise ValueError(
                f"motion_vector_rasterize: table {tuple(table.shape)}, {table.dtype}: expected M×9 integers "
                f"({', '.join(COLUMNS)})"
            )
        if frames < 0 or height < 1 or width < 1 or cell < 1:
            raise ValueError(
                f"motion_vector_rasterize: frames {frames}, height {height}, width {width}, cell {cell}: expected "
                "positive numbers"
            )
        if distances is None:
            distances = torch.tensor([-1, 1], device=table.device).expand(frames, 2)
        if tuple(distances.shape) != (frames, 2) or distances.is_floating_point():
            raise ValueError(
                f"motion_vector_rasterize: distances {tuple(distances.shape)}, {distances.dtype}: expected {frames}×2 "
                "integers"
            )
        if table.dtype not in (torch.int32, torch.int64):
            table = table.long()
        if not torch.compiler.is_compiling():
            _check(table, frames, cell)
        return table, frames, height, width, distances.to(table.device).long(), cell

    def reference(  # noqa: D102
        self, table: Tensor, frames: int, height: int, width: int, distances: Tensor, cell: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        table = table.long()
        rows, columns = -(-height // cell), -(-width // cell)
        frame, source, w, h, dst_x, dst_y, motion_x, motion_y, scale = table.unbind(1)
        good = _good(table, frames, cell)
        field = frame * 2 + (source > 0)
        left = torch.div(dst_x - w // 2, cell, rounding_mode="floor")
        top = torch.div(dst_y - h // 2, cell, rounding_mode="floor")
        # The last row of the table on each cell, -1 where there is none.
        owner = table.new_full((frames * 2 * rows * columns,), -1)
        present = table.new_zeros(frames * 2).index_add(0, field[good], torch.ones_like(field[good])) > 0
        number = torch.arange(len(table), device=table.device)
        for j in range(int(h.max()) // cell if len(table) else 0):
            for i in range(int(w.max()) // cell):
                x, y = left + i, top + j
                inside = good & (i * cell < w) & (j * cell < h) & (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
                place = ((field * rows + y) * columns + x)[inside]
                owner = owner.scatter_reduce(0, place, number[inside], "amax")
        valid = owner >= 0
        vectors = torch.stack((motion_x, motion_y), dim=1).float() / scale.float()[:, None]
        sizes = torch.stack((w, h), dim=1).short()
        flow, size = (
            torch.cat((values, values.new_zeros(1, 2)))[owner]  # owner -1 reads the last row, the zero
            .view(frames, 2, rows, columns, 2)
            .permute(0, 1, 4, 2, 3)
            .contiguous()
            for values in (vectors, sizes)
        )
        return flow, valid.view(frames, 2, rows, columns), torch.where(present.view(frames, 2), distances, 0), size

    def fake(  # noqa: D102
        self, table: Tensor, frames: int, height: int, width: int, distances: Tensor, cell: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows, columns = -(-height // cell), -(-width // cell)
        return (
            table.new_empty((frames, 2, 2, rows, columns), dtype=torch.float32),
            table.new_empty((frames, 2, rows, columns), dtype=torch.bool),
            table.new_empty((frames, 2), dtype=torch.int64),
            table.new_empty((frames, 2, 2, rows, columns), dtype=torch.int16),
        )

    def cpp(
        self, table: Tensor, frames: int, height: int, width: int, distances: Tensor, cell: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One pass over the table."""
        flow, valid, distance, size = results = self.fake(table, frames, height, width, distances, cell)
        tensors = (table.contiguous(), distances.contiguous(), flow, valid, distance, size)
        wide = table.dtype == torch.int64
        _native.call("motion_vector_rasterize", *tensors, len(table), frames, *valid.shape[2:], cell, wide)
        return results

    def cuda(
        self, table: Tensor, frames: int, height: int, width: int, distances: Tensor, cell: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A thread a row of the table claims cells by integer maxima, a thread a cell fills it."""
        table = table.long()
        flow, valid, distance, size = results = self.fake(table, frames, height, width, distances, cell)
        owner, present = table.new_full(valid.shape, -1, dtype=torch.int32), table.new_zeros(frames * 2)
        table, shape = table.contiguous(), (frames, *valid.shape[2:], cell)
        _cuda.launch_threads("claim_cells", len(table), table, owner, present, len(table), *shape, dtype=torch.float32)
        _cuda.launch_threads("fill_cells", valid.numel(), table, owner, flow, valid, size, *shape)
        distance.copy_(torch.where(present.view(frames, 2) > 0, distances, 0))
        return results


@register_op
class MotionVectorField(Op):
    """The motion vectors of one decoded frame on cells, each with the distance to the picture that it refers to.

    Decoders tell whether a vector points into the past or the future, not into which picture. Where there are several
    candidates in one direction, every cell is compared with each of them, shifted by the cell's vector (bilinear, the
    border continued), and the one that looks most like it is taken.

    Args (of the call):
        records: M×10 int32, FFmpeg's ``AVMotionVector`` structures as they lie in memory. Blocks are spread over cells
            as :class:`MotionVectorRasterize` does; rows that it calls bad are dropped.
        height: of the frame in pixels.
        width: of the frame in pixels.
        steps: signed distance in frames to each candidate: the past ones (below 0), the likeliest first, then the
            future ones; at least one of either.
        spans: the same in units of time, positive.
        image: the frame's luma, H×W uint8, and
        references: the candidates' luma, in the order of ``steps``; both only where a direction has several.
        left: columns of the coded picture that are cut off; a multiple of the cell.
        top: rows of the coded picture that are cut off; a multiple of the cell.
        penalty: what each further candidate must gain in mean absolute difference, in grey levels.
        cell: side of a cell in pixels, which divides all block sizes.

    Returns:
        flow: 2×2×h×w float32 with h and w the frame's size in cells, rounded up; axis 0 is the list (past, future),
            axis 1 x and y; pixels from here to the place in the reference; 0 where not valid, as all the rest.
        valid: 2×h×w bool, whether a vector covers the cell.
        distance: 2×h×w int64, the candidate's ``steps``.
        span: 2×h×w float32, the candidate's ``spans``.
        area: 2×h×w float32, area of the block in pixels.

    Raises:
        ValueError: sizes or types that do not fit; the message names them.
    """

    name = "motion_vector_field"
    schema = (
        "(Tensor records, int height, int width, int[] steps, float[] spans, Tensor? image, Tensor[] references, "
        "int left, int top, float penalty, int cell) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    )
    tolerance = 0.0

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        image, *references = (make.integers(21, 18, high=256).to(torch.uint8) for _ in range(4))
        records = torch.zeros(9, 10, dtype=torch.int32)
        records[:, 0] = make.integers(9, high=2) * 2 - 1  # which direction
        records[:, 1] = (make.integers(9, low=1, high=3) * 8) | (make.integers(9, low=1, high=3) * 8) << 8
        records[:, 2:4] = torch.stack((make.integers(9, high=24) << 16, make.integers(9, high=24)), dim=1)  # the centre
        records[:, 6:8] = make.integers(9, 2, low=-20, high=20)
        records[:, 8] = 4
        return records, 21, 18, [-1, -2, 1], [1.0, 2.0, 0.5], image, references

    def prepare(  # noqa: D102
        self,
        records: Tensor,
        height: int,
        width: int,
        steps: Sequence[int] = (-1, 1),
        spans: Sequence[float] = (1.0, 1.0),
        image: Tensor | None = None,
        references: Sequence[Tensor] = (),
        left: int = 0,
        top: int = 0,
        penalty: float = 0.0,
        cell: int = 8,
    ) -> tuple:
        if records.dim() != 2 or records.shape[1] != 10 or records.dtype != torch.int32:
            raise ValueError(f"{self.name}: records {tuple(records.shape)}, {records.dtype}: expected M×10 int32")
        past = sum(step < 0 for step in steps)
        if not 0 < past < len(steps) == len(spans) or max(steps[:past]) >= 0 or min(steps[past:]) <= 0:
            raise ValueError(
                f"{self.name}: steps {list(steps)}, spans {list(spans)}: expected as many, of the past and then the "
                "future"
            )
        if left % cell or top % cell:
            raise ValueError(f"{self.name}: left {left}, top {top}: expected multiples of the cell ({cell})")
        if len(steps) == 2:
            return records, height, width, list(steps), list(spans), None, [], left, top, float(penalty), cell
        pictures = [image, *references]
        if len(references) != len(steps) or any(
            picture is None or tuple(picture.shape) != (height, width) or picture.dtype != torch.uint8
            for picture in pictures
        ):
            told = ", ".join("none" if p is None else f"{tuple(p.shape)} {p.dtype}" for p in pictures)
            raise ValueError(
                f"{self.name}: pictures {told}: expected 1 + {len(steps)} of {height}×{width} uint8: where a direction "
                "has several candidates they are told apart by looks"
            )
        candidates = list(steps), list(spans), image, list(references)
        return records, height, width, *candidates, left, top, float(penalty), cell

    def reference(  # noqa: D102
        self,
        records: Tensor,
        height: int,
        width: int,
        steps: list[int],
        spans: list[float],
        image: Tensor | None,
        references: list[Tensor],
        left: int,
        top: int,
        penalty: float,
        cell: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        records = records.contiguous()
        halves, octets = records.view(torch.int16), records.view(torch.uint8)
        columns = [records[:, 0] * 0, records[:, 0], octets[:, 4], octets[:, 5], halves[:, 5] - left]
        columns += [halves[:, 6] - top, records[:, 6], records[:, 7], halves[:, 16]]
        table = torch.stack([column.long() for column in columns], dim=1)
        none = torch.zeros(1, 2, dtype=torch.int64, device=records.device)
        flow, valid, _, size = (
            value[0] for value in motion_vector_rasterize.reference(table, 1, height, width, none, cell)
        )
        past = sum(step < 0 for step in steps)
        distance, span = torch.zeros(valid.shape, dtype=torch.int64), torch.zeros(valid.shape)
        for side, group in enumerate((slice(0, past), slice(past, None))):
            which = torch.zeros(valid.shape[1:], dtype=torch.int64)
            if len(steps[group]) > 1:
                which = _likest(image, references[group], flow[side], penalty, cell)
            distance[side] = torch.where(valid[side], torch.tensor(steps[group])[which], 0)
            span[side] = torch.where(valid[side], torch.tensor(spans[group])[which], 0)
        return flow, valid, distance, span, size.prod(dim=1).float()

    def fake(self, records: Tensor, height: int, width: int, *rest: Any) -> tuple[Tensor, ...]:  # noqa: D102
        rows, columns = -(-height // rest[-1]), -(-width // rest[-1])
        return (
            records.new_empty((2, 2, rows, columns), dtype=torch.float32),
            records.new_empty((2, rows, columns), dtype=torch.bool),
            records.new_empty((2, rows, columns), dtype=torch.int64),
            records.new_empty((2, rows, columns), dtype=torch.float32),
            records.new_empty((2, rows, columns), dtype=torch.float32),
        )

    def cpp(
        self,
        records: Tensor,
        height: int,
        width: int,
        steps: list[int],
        spans: list[float],
        image: Tensor | None,
        references: list[Tensor],
        left: int,
        top: int,
        penalty: float,
        cell: int,
    ) -> tuple[Tensor, ...]:
        """A pass over the records; then a cell at a time, the candidates after one another while they may be best."""
        results = self.fake(records, height, width, cell)
        pictures = [p if p.stride(1) == 1 else p.contiguous() for p in (image, *references) if p is not None]
        places = [[picture.data_ptr(), picture.stride(0)] for picture in pictures] or [[0, 0]]
        candidates = torch.tensor(steps), torch.tensor(spans, dtype=torch.float32)
        past, sizes = sum(step < 0 for step in steps), (len(records), height, width)
        grid = (*results[1].shape[1:], cell, left, top)
        tensors = (records.contiguous(), torch.tensor(places), *candidates, *results)
        _native.call(self.name, *tensors, *sizes, *grid, past, len(steps), penalty, dtype=torch.float32)
        return results


def _likest(image: Tensor, references: list[Tensor], flow: Tensor, penalty: float, cell: int) -> Tensor:
    """For every cell the index of the picture that, shifted by the cell's vector, looks most like the image there."""
    height, width = image.shape
    dense = flow.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[None, :, :height, :width]
    costs = []
    for further, picture in enumerate(references):
        shifted = backward_warp.reference(picture[None, None].to(flow), dense, "border")[0]
        difference = F.avg_pool2d((shifted - image.to(flow)).abs(), cell, ceil_mode=True)[0]
        costs.append(difference + further * penalty)
    return torch.stack(costs).argmin(dim=0)


@register_op
class MotionVectorFlow(Op):
    """Flow from a frame to the one before it, from the motion vectors of both lists; or, thrown, the way back.

    A vector to a reference ``d`` spans away counts as ``d`` times the motion of one frame: candidates ``past / d`` and
    ``-future / d``, averaged with weights ``1 / d``. Thrown, every cell goes to where it came from, with bilinear
    weights and its flow turned; where weights of ``least`` or more meet, their mean counts.

    Args (of the call):
        flow: 2×2×h×w floating, axis 0 the list (past, future), pixels.
        valid: 2×h×w bool.
        span: 2×h×w, distance to the reference in time since the frame before.
        area: 2×h×w, area of the block in pixels.
        thrown: flow from the frame before to this one, on its cells, in place of flow to it.
        least: see above.
        cell: side of a cell in pixels.

    Returns:
        flow: 2×h×w in pixels; 0 where not valid, as all the rest.
        valid: h×w bool.
        gap: h×w, 1 / span of the nearest reference that it comes from.
        size: h×w, log2 of the block's area.
    """

    name = "motion_vector_flow"
    schema = (
        "(Tensor flow, Tensor valid, Tensor span, Tensor area, bool thrown, float least, int cell)"
        " -> (Tensor, Tensor, Tensor, Tensor)"
    )

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        valid = make.integers(2, 4, 5, high=3) > 0
        span, area = make.integers(2, 4, 5, low=1, high=4).float(), 8.0 * make.integers(2, 4, 5, low=8, high=32)
        return make(2, 2, 4, 5, scale=12) * valid[:, None], valid, span * valid, area * valid, True

    def prepare(  # noqa: D102
        self,
        flow: Tensor,
        valid: Tensor,
        span: Tensor,
        area: Tensor,
        thrown: bool = False,
        least: float = 0.25,
        cell: int = 8,
    ) -> tuple:
        grid = tuple(flow.shape[2:])
        shapes = [tuple(value.shape) for value in (flow, valid, span, area)]
        if flow.dim() != 4 or shapes != [(2, 2, *grid), *[(2, *grid)] * 3] or valid.dtype != torch.bool:
            raise ValueError(
                f"{self.name}: flow, valid, span, area of {', '.join(map(str, shapes))}, valid {valid.dtype}: expected "
                "2×2×h×w, and 2×h×w of which valid is bool"
            )
        return flow, valid, span.to(flow.dtype), area.to(flow.dtype), thrown, float(least), cell

    def reference(  # noqa: D102
        self, flow: Tensor, valid: Tensor, span: Tensor, area: Tensor, thrown: bool, least: float, cell: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        span = torch.where(valid, span, 1)
        weight = valid.to(flow.dtype) / span
        total = weight.sum(dim=0)
        known = total > 0
        sign = flow.new_tensor([1.0, -1.0]).view(2, 1, 1, 1)
        share = torch.where(known, total, 1)
        back = torch.where(known, (sign * flow * (weight / span)[:, None]).sum(dim=0) / share, 0)
        size = (weight * torch.where(valid, area, 1).log2()).sum(dim=0) / share
        gap = weight.amax(dim=0)
        if not thrown:
            return back, known, gap, size
        where = known[None].to(flow.dtype)
        values = torch.cat((-back, gap[None], size[None], torch.ones_like(where))) * where
        total = splat_sum.reference(values[None], (back / cell)[None])[0]
        known = total[-1] >= least
        mean = torch.where(known, total[:-1] / torch.where(known, total[-1], 1), 0)
        return mean[:2].clone(), known, mean[2].clone(), mean[3].clone()

    def fake(self, flow: Tensor, valid: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: D102
        return tuple(torch.empty_like(like, memory_format=torch.contiguous_format) for like in
                     (flow[0], valid[0], flow[0, 0], flow[0, 0]))  # fmt: skip

    def cpp(
        self, flow: Tensor, valid: Tensor, span: Tensor, area: Tensor, thrown: bool, least: float, cell: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One pass over the cells, and one more where they are thrown."""
        results = self.fake(flow, valid)
        tensors = [value.contiguous() for value in (flow, valid, span, area)]
        _native.call(self.name, *tensors, *results, *valid.shape[1:], cell, thrown, least)
        return results


def motion_vector_table(vectors: Iterable[np.ndarray | None] | np.ndarray) -> Tensor:
    """A motion-vector table from the structured arrays that PyAV gives (``side_data.to_ndarray()``).

    Args:
        vectors: one array a frame, None or empty where a frame has no vectors; or one array with a field ``frame``.

    Returns:
        M×9 int32 table, the columns of :data:`COLUMNS`.

    Raises:
        ValueError: an array lacks a field; the message names it.
    """
    arrays = [vectors] if isinstance(vectors, np.ndarray) else list(vectors)
    parts = [np.empty((0, len(COLUMNS)), np.int32)]
    for index, array in enumerate(arrays):
        if array is None or len(array) == 0:
            continue
        names = array.dtype.names or ()
        missing = [name for name in COLUMNS if name not in names and (name != "frame" or arrays[0] is vectors)]
        if missing:
            raise ValueError(f"motion_vector_table: vectors of frame {index} lack {', '.join(missing)}")
        # Blocks' sizes are unsigned bytes, whose differences wrap: everything becomes int32 first.
        columns: list[Any] = [array[name] if name in names else np.full(len(array), index) for name in COLUMNS]
        parts.append(np.stack([np.asarray(column).astype(np.int32) for column in columns], axis=1))
    return torch.from_numpy(np.concatenate(parts))


def reference_distances(types: Sequence[str]) -> Tensor:
    """Distance in frames to each list's reference, for streams with one reference a list and no B pyramid.

    P frames refer to the last I or P frame, B frames to the last and the next.

    Args:
        types: ``I``, ``P`` or ``B`` of each frame, in presentation order.

    Returns:
        N×2 int64: at most -1 for the past, at least 1 for the future, 0 for a list that the frame has not.
    """
    unknown = sorted(set(types) - set("IPB"))
    if unknown:
        raise ValueError(f"reference_distances: picture types {', '.join(unknown)}: expected I, P and B")
    distances = torch.zeros(len(types), 2, dtype=torch.int64)
    last = None
    for index, kind in enumerate(types):
        if kind != "I" and last is not None:
            distances[index, 0] = last - index
        if kind != "B":
            # The frames between two anchors are those that look ahead to the second.
            first = 0 if last is None else last + 1
            distances[first:index, 1] = torch.arange(index - first, 0, -1)
            last = index
    return distances


def _good(table: Tensor, frames: int, cell: int) -> Tensor:
    frame, source, w, h, *_, scale = table.unbind(1)
    sized = (w > 0) & (h > 0) & (w < 2**15) & (h < 2**15) & (w % cell == 0) & (h % cell == 0)
    return (frame >= 0) & (frame < frames) & (source != 0) & sized & (scale > 0)


def _check(table: Tensor, frames: int, cell: int) -> None:
    if len(table) == 0:
        return
    # Most tables are good, and that is seen in few passes.
    low, high = (values.tolist() for values in torch.aminmax(table, dim=0))
    ranges = low[0] >= 0 and high[0] < frames and min(*low[2:4], low[8]) > 0 and max(high[2:4]) < 2**15
    if ranges and bool(table[:, 1].all()) and not bool((table[:, 2:4] % cell).any()):
        return
    good = _good(table, frames, cell)
    row = int(good.logical_not().nonzero()[0])
    values = ", ".join(f"{name} {value}" for name, value in zip(COLUMNS, table[row].tolist(), strict=True))
    raise ValueError(
        f"motion_vector_rasterize: row {row} of the table ({values}): expected frame in 0..{frames - 1}, source not 0, "
        f"w and h positive multiples of the cell ({cell}), motion_scale above 0"
    )


motion_vector_rasterize = MotionVectorRasterize()
motion_vector_field = MotionVectorField()
motion_vector_flow = MotionVectorFlow()
