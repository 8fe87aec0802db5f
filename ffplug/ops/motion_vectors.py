"""A codec's motion vectors on a grid of cells, and the pictures that they refer to."""

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
class MotionVectorReference(Op):
    """Find which of several pictures the motion vectors of a frame refer to, cell by cell: the one that looks like it.

    Decoders tell whether a vector points into the past or the future, not into which picture. Every cell is compared
    with each picture, shifted by the cell's vector (bilinear, the border continued).

    Args (of the call):
        image: the frame's luma, H×W uint8.
        references: K >= 1 pictures, each H×W uint8, the likeliest first.
        flow: 2×h×w, the vectors in pixels, on cells.
        valid: h×w bool, which cells have one.
        penalty: what each further picture must gain in mean absolute difference, in grey levels.
        cell: side of a cell in pixels; h and w are the frame's size in cells, rounded up.

    Returns:
        h×w int64, the picture's index; 0 where not valid.

    Raises:
        ValueError: sizes or types that do not fit; the message names them.
    """

    name = "motion_vector_reference"
    schema = "(Tensor image, Tensor[] references, Tensor flow, Tensor valid, float penalty, int cell) -> Tensor"
    tolerance = 0.0

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        image, *references = (make.integers(21, 18, high=256).to(torch.uint8) for _ in range(4))
        return image, references, make(2, 3, 3, scale=4), make.integers(3, 3, high=4) > 0

    def prepare(  # noqa: D102
        self,
        image: Tensor,
        references: Sequence[Tensor],
        flow: Tensor,
        valid: Tensor,
        penalty: float = 0.0,
        cell: int = 8,
    ) -> tuple:
        pictures = [image, *references]
        fitting = all(p.shape == image.shape and p.dtype == torch.uint8 for p in pictures)
        if len(pictures) < 2 or image.dim() != 2 or image.numel() == 0 or not fitting:
            told = ", ".join(f"{tuple(picture.shape)} {picture.dtype}" for picture in pictures)
            raise ValueError(f"{self.name}: pictures {told}: expected two or more of H×W uint8, all of one size")
        grid = tuple(-(-side // cell) for side in image.shape)
        if tuple(flow.shape) != (2, *grid) or tuple(valid.shape) != grid or valid.dtype != torch.bool:
            raise ValueError(
                f"{self.name}: flow {tuple(flow.shape)}, valid {tuple(valid.shape)} {valid.dtype}: expected 2×h×w and "
                f"h×w bool with h, w = {grid}"
            )
        return image, list(references), flow, valid, float(penalty), cell

    def reference(  # noqa: D102
        self, image: Tensor, references: list[Tensor], flow: Tensor, valid: Tensor, penalty: float, cell: int
    ) -> Tensor:
        height, width = image.shape
        flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
        dense = flow.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[None, :, :height, :width]
        costs = []
        for further, picture in enumerate(references):
            shifted = backward_warp.reference(picture[None, None].to(flow), dense, "border")[0]
            difference = (shifted - image.to(flow)).abs()
            costs.append(F.avg_pool2d(difference, cell, ceil_mode=True)[0] + further * penalty)
        return torch.where(valid, torch.stack(costs).argmin(dim=0), 0)

    def fake(  # noqa: D102
        self, image: Tensor, references: list[Tensor], flow: Tensor, valid: Tensor, penalty: float, cell: int
    ) -> Tensor:
        return valid.new_empty(valid.shape, dtype=torch.int64)

    def cpp(
        self, image: Tensor, references: list[Tensor], flow: Tensor, valid: Tensor, penalty: float, cell: int
    ) -> Tensor:
        """A cell at a time, the pictures after one another, none further than the best one so far."""
        which = self.fake(image, references, flow, valid, penalty, cell)
        pictures = [p if p.stride(1) == 1 else p.contiguous() for p in (image, *references)]
        where = torch.tensor([[picture.data_ptr(), picture.stride(0)] for picture in pictures])
        sizes = (*image.shape, *valid.shape, len(references))
        _native.call(self.name, where, flow.contiguous(), valid.contiguous(), which, *sizes, cell, penalty)
        return which


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
motion_vector_reference = MotionVectorReference()
