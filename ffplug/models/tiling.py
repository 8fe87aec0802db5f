"""Large frames in overlapping tiles, blended with Gaussian weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.errors import ConfigError
from ffplug.models.parts import map_tensors


def tile_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles of length ``tile`` start on a line of ``size`` >= ``tile`` pixels, ascending, each once.

    Tiles follow each other every ``tile - overlap`` pixels; one that would reach past the end is moved back to
    ``size - tile``.
    """
    return sorted({min(start, size - tile) for start in range(0, size, tile - overlap)})


def tile_corners(size: tuple[int, int], tile: tuple[int, int], overlap: int) -> list[tuple[int, int]]:
    """Return the top-left corners (y, x) of the tiles that cover a frame of ``size`` (H, W), row by row."""
    rows, columns = (tile_starts(length, part, overlap) for length, part in zip(size, tile, strict=True))
    return [(y, x) for y in rows for x in columns]


def blending_weights(size: int, tile: int, starts: list[int], sigma: float) -> Tensor:
    """Return the share of each tile in each pixel of a line: len(starts) × ``size``, float32, columns sum to 1.

    A pixel's weight is exp(-r² / 2 sigma²), with r its distance to the tile's centre in units of the tile's length
    (FlowFormer, ECCV 2022, its tiled evaluation). The two-dimensional weight is the product of the two lines', and
    so is its normalised form. Far from every centre the plain weights sink below what float32 holds; the softmax
    subtracts the largest log-weight of each pixel first, which leaves the shares as they are and exact everywhere.
    """
    position = torch.arange(size, dtype=torch.float64) - torch.tensor(starts, dtype=torch.float64)[:, None]
    log_weight = -0.5 * ((position / tile - 0.5) / sigma) ** 2
    log_weight[(position < 0) | (position >= tile)] = -torch.inf
    return log_weight.softmax(dim=0).float()


class TiledFlowInference:
    """Runs a flow network on tiles of the frames and blends the tiles' flow.

    Frames smaller than a tile are padded at the bottom and right up to the tile. Weights, overlap and corners are
    those of FlowFormer's published evaluation, computed each tile once.

    Args:
        size: height and width of a tile, in pixels.
        overlap: pixels that neighbouring tiles share at least.
        sigma: spread of the Gaussian weight, in units of the tile's size.
        batch_size: tiles of one frame pair that go through the network together.
        padding: what fills a frame that is smaller than a tile: ``'zeros'`` (as published for KITTI) or
            ``'replicate'``.
        stride: ratio of frame to working grid, for the low-resolution flow; a model gives that of its encoder.

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(
        self,
        size: tuple[int, int] = (432, 960),
        overlap: int = 20,
        sigma: float = 0.05,
        batch_size: int = 1,
        padding: str = "zeros",
        stride: int = 8,
    ) -> None:
        if len(size) != 2 or min(size) < 1:
            raise ConfigError(f"tile size: expected (height, width) in pixels, both positive, got {tuple(size)}")
        if not 0 <= overlap < min(size):
            raise ConfigError(
                f"tile overlap: expected 0 to {min(size) - 1} pixels in tiles of {tuple(size)}, got {overlap}"
            )
        if sigma <= 0 or batch_size < 1:
            raise ConfigError(f"tiles: sigma and batch_size must be positive, got {sigma} and {batch_size}")
        if padding not in ("zeros", "replicate"):
            raise ConfigError(f"tile padding: expected 'zeros' or 'replicate', got {padding!r}")
        self.size = (int(size[0]), int(size[1]))
        self.overlap = overlap
        self.sigma = sigma
        self.batch_size = batch_size
        self.padding = padding
        self.stride = stride

    def __call__(
        self,
        predict: Callable[..., dict[str, Any]],
        image1: Tensor,
        image2: Tensor,
        iterations: int | None = None,
        flow_init: Tensor | dict[str, Tensor] | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Predict the flow of whole frames.

        Args:
            predict: the network's ``predict_flow``; it sees frames of exactly one tile.
            image1: first frames, N×3×H×W, RGB in 0..255.
            image2: second frames, as ``image1``.
            iterations: passed on to ``predict``.
            flow_init: low-resolution flow to start from, N×2×ceil(H/stride)×ceil(W/stride), in grid cells, as the
                ``flow_low`` of an earlier call; or several by the names of the network's decoders.
            inputs: further inputs by name, or None; those on the frames' grid are cut into tiles too, with zeros for
                padding, other tensors go to every tile.

        Returns:
            ``flow``, N×2×H×W in pixels, and ``flow_low``, its mean over each cell of the working grid in grid cells,
            N×2×ceil(H/stride)×ceil(W/stride); the same of every further flow that the network gives (``head_flow``);
            and the mean over a frame's tiles of what else it tells (a policy's ``steps``).
        """
        height, width = image1.shape[-2:]
        bottom, right = max(0, self.size[0] - height), max(0, self.size[1] - width)
        dense, single = {}, {}
        for name, value in (inputs or {}).items():
            if isinstance(value, Tensor) and value.shape[-2:] == (height, width):
                dense[name] = F.pad(value, (0, right, 0, bottom))
            else:
                single[name] = value
        if bottom or right:
            image1, image2 = self._pad(image1, bottom, right), self._pad(image2, bottom, right)
        padded = (height + bottom, width + right)
        start = map_tensors(flow_init, lambda flow: self._to_pixels(flow, padded))

        rows, columns = (tile_starts(s, t, self.overlap) for s, t in zip(padded, self.size, strict=True))
        row_share = blending_weights(padded[0], self.size[0], rows, self.sigma).to(image1.device)
        column_share = blending_weights(padded[1], self.size[1], columns, self.sigma).to(image1.device)
        tiles = [(r, c) for r in range(len(rows)) for c in range(len(columns))]
        flows: dict[str, Tensor] = {}
        reports: dict[str, Tensor] = {}
        for batch in self._batches(tiles):
            corners = [(rows[r], columns[c]) for r, c in batch]
            windows = [(slice(y, y + self.size[0]), slice(x, x + self.size[1])) for y, x in corners]
            frames = [torch.cat([image[..., y, x] for y, x in windows]) for image in (image1, image2)]
            init = map_tensors(start, functools.partial(self._cut, windows))
            more = {name: torch.cat([value[..., y, x] for y, x in windows]) for name, value in dense.items()}
            for name, value in single.items():
                more[name] = torch.cat([value] * len(batch)) if isinstance(value, Tensor) else value
            options = {"inputs": more} if inputs else {}
            predicted = predict(*frames, iterations=iterations, flow_init=init, **options)
            for name, value in predicted.items():
                if name.endswith("flow"):
                    blank = image1.new_zeros(len(image1), 2, *padded, dtype=torch.float32)
                    flow, parts = flows.setdefault(name, blank), value.float().split(len(image1))
                    for (r, c), (y, x), tile in zip(batch, windows, parts, strict=True):
                        flow[..., y, x] += tile * row_share[r, y, None] * column_share[c, x]
                elif not name.endswith("flow_low"):
                    total = value.float().unflatten(0, (len(batch), len(image1))).sum(0)
                    reports[name] = reports.get(name, 0) + total / len(tiles)
        flows = {name: flow[..., :height, :width] for name, flow in flows.items()}
        return {**flows, **{f"{name}_low": self._to_cells(flow) for name, flow in flows.items()}, **reports}

    def _cut(self, windows: list[tuple[slice, slice]], flow: Tensor) -> Tensor:
        """Flow in pixels -> low-resolution flow of each window, one behind another."""
        return torch.cat([self._to_cells(flow[..., y, x]) for y, x in windows])

    def _batches(self, tiles: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        for first in range(0, len(tiles), self.batch_size):
            yield tiles[first : first + self.batch_size]

    def _pad(self, image: Tensor, bottom: int, right: int) -> Tensor:
        return F.pad(image, (0, right, 0, bottom), mode="constant" if self.padding == "zeros" else "replicate")

    def _to_cells(self, flow: Tensor) -> Tensor:
        """Flow in pixels -> its mean over each cell of the grid, in cells; cells at the border may be partial."""
        return F.avg_pool2d(flow, self.stride, ceil_mode=True) / self.stride

    def _to_pixels(self, flow_low: Tensor, size: tuple[int, int]) -> Tensor:
        """Low-resolution flow -> flow in pixels, constant in each cell, over at least ``size`` pixels."""
        flow = self.stride * flow_low.repeat_interleave(self.stride, -2).repeat_interleave(self.stride, -1)
        bottom, right = (max(0, wanted - given) for wanted, given in zip(size, flow.shape[-2:], strict=True))
        return F.pad(flow, (0, right, 0, bottom), mode="replicate")
