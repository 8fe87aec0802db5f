"""Z-buffer rasterisation of triangle meshes, and interpolation of what their vertices carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ffplug.ops.build import CSRC
from ffplug.ops.contract import Op, register_op
from ffplug.ops.cuda import CudaSource
from ffplug.ops.native import NativeSource

_native = NativeSource(CSRC / "mesh.cpp")
_cuda = CudaSource(CSRC / "mesh.cu")
_TILE = 16
_CHUNK = 1 << 22  # pairs of triangle and pixel that the reference holds at a time


@register_op
class MeshRasterize(Op):
    """Which triangle each pixel shows, where on it, and how far away.

    A pixel's centre has integer coordinates. A triangle of either orientation covers the centres inside it and those
    on its left and top edges, so that of two triangles that share an edge exactly one covers a centre on it; an edge
    is evaluated from its lower end (smaller x, then y), whichever triangle asks, in double precision. The nearest
    triangle wins; at equal depth the one with the lowest index. Interpolation is perspective-correct: with screen
    weights w, corner k counts w_k/z_k, and the depth is 1/Σ(w_k/z_k).

    A triangle with a corner at or before the near plane, with one that is not finite, or without area is not drawn:
    cut meshes that cross the camera before they are projected.

    The gradient goes through barycentrics and depth to the corners of the triangle that won; which one wins has none.

    Args (of the call):
        vertices: N×V×3 (or V×3, taken as N=1): x and y in pixels, and the camera depth z.
        faces: F×3 integers, shared by the batch.
        height, width: of the image.
        near: least depth, at least 0.

    Returns:
        Barycentrics N×H×W×3 and depth N×H×W (both 0 where there is no triangle) in the type of the vertices, at least
        float32, and the triangle's index N×H×W (int32, -1 where there is none).

    Raises:
        ValueError: shapes, types or ``near`` are not as above, or a face names a vertex that there is not.
    """

    name = "mesh_rasterize"
    schema = "(Tensor vertices, Tensor faces, int height, int width, float near) -> (Tensor, Tensor, Tensor)"
    differentiable = ("vertices",)
    saves_outputs = True
    # Half-precision corners move by pixels' fractions.
    half_tolerance = 5e-2
    tolerance = 1e-4

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        corners = make.uniform(1, 4, 1, 2, low=-3, high=10) + make(1, 4, 3, 2, scale=6.0)
        vertices = torch.cat((corners, make.uniform(1, 4, 3, 1, low=0.5, high=2.0)), dim=-1).flatten(1, 2)
        return vertices, torch.arange(12, device=vertices.device).view(4, 3), 7, 9

    def prepare(self, vertices: Tensor, faces: Tensor, height: int, width: int, near: float = 1e-6) -> tuple:  # noqa: D102
        if vertices.dim() == 2:
            vertices = vertices[None]
        if vertices.dim() != 3 or vertices.shape[2] != 3 or not vertices.is_floating_point():
            raise ValueError(f"mesh_rasterize: vertices {tuple(vertices.shape)}: expected floating N×V×3 (x, y, depth)")
        if faces.dim() != 2 or faces.shape[1] != 3 or faces.is_floating_point():
            raise ValueError(f"mesh_rasterize: faces {tuple(faces.shape)}, {faces.dtype}: expected F×3 integers")
        if height < 1 or width < 1:
            raise ValueError(f"mesh_rasterize: an image of {height}×{width}: expected at least 1×1")
        if near < 0:
            raise ValueError(f"mesh_rasterize: near={near}: expected at least 0")
        return vertices.to(torch.promote_types(vertices.dtype, torch.float32)), faces.long(), height, width, float(near)

    def reference(self, vertices: Tensor, faces: Tensor, height: int, width: int, near: float) -> tuple:  # noqa: D102
        _check_range(vertices, faces)
        triangle = faces.new_empty(len(vertices), height, width)
        for own, one in zip(triangle, vertices.detach().double(), strict=True):
            own.copy_(_winners(one, faces, height, width, near))
        hit = triangle >= 0
        image, y, x = hit.nonzero(as_tuple=True)
        corners = vertices.double()[image[:, None], faces[triangle[hit]]]  # hits×3×3
        edges = _edge_values(corners, x, y)
        parts = edges / corners[..., 2]
        total = parts.sum(1)
        barycentrics, depth = vertices.new_zeros(*hit.shape, 3), vertices.new_zeros(hit.shape)
        barycentrics = barycentrics.index_put((image, y, x), (parts / total[:, None]).to(vertices.dtype))
        depth = depth.index_put((image, y, x), (edges.sum(1) / total).to(vertices.dtype))
        return barycentrics, depth, triangle.int()

    def fake(self, vertices: Tensor, faces: Tensor, height: int, width: int, near: float) -> tuple:  # noqa: D102
        shape = (vertices.shape[0], height, width)
        triangle = vertices.new_empty(shape, dtype=torch.int32)
        return vertices.new_empty(*shape, 3), vertices.new_empty(shape), triangle

    def cpp(self, vertices: Tensor, faces: Tensor, height: int, width: int, near: float) -> tuple:
        """Bands of rows, vectors along a row."""
        _check_range(vertices, faces)
        results = self.fake(vertices, faces, height, width, near)
        sizes = (*vertices.shape[:2], len(faces), height, width)
        _native.call("mesh_rasterize", vertices.contiguous(), faces.contiguous(), *results, *sizes, near)
        return results

    def cpp_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor]:
        """A triangle gathers from its pixels, a vertex from its triangles, both in a fixed order."""
        vertices, faces, height, width, near = args
        grad = vertices.new_empty(vertices.shape)
        shares = vertices.new_empty(len(faces), 9, dtype=torch.float64)
        tensors = (grads[0].contiguous(), grads[1].contiguous(), vertices.contiguous(), faces.contiguous())
        sizes = (*vertices.shape[:2], len(faces), height, width)
        kernel = "mesh_rasterize_backward"
        _native.call(kernel, *tensors, outputs[2], grad, shares, *sizes, near, dtype=vertices.dtype)
        return (grad,)

    def cuda(self, vertices: Tensor, faces: Tensor, height: int, width: int, near: float) -> tuple:
        """A block a tile, in double precision."""
        _check_range(vertices, faces)
        results = self.fake(vertices, faces, height, width, near)
        records, boxes = self._set_up(vertices, faces, height, width, near)
        grid = (-(-width // _TILE), -(-height // _TILE), len(vertices))
        tensors = (records, boxes, *results)
        sizes = (len(faces), height, width)
        _cuda.launch("mesh_rasterize", grid, _TILE * _TILE, *tensors, *sizes, dtype=vertices.dtype)
        return results

    def cuda_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor]:
        """A warp a triangle; the vertices gather in torch, in a fixed order in deterministic mode."""
        vertices, faces, height, width, near = args
        count, points, number = *vertices.shape[:2], len(faces)
        boxes = self._set_up(vertices, faces, height, width, near)[1]
        shares = vertices.new_empty(count, number * 3, 3, dtype=torch.float64)
        tensors = (grads[0].contiguous(), grads[1].contiguous(), vertices.contiguous(), faces.contiguous(), boxes)
        threads = count * number * 32
        sizes = (count, points, number, height, width)
        kernel = "mesh_rasterize_backward"
        _cuda.launch_threads(kernel, threads, *tensors, outputs[2], shares, *sizes, dtype=vertices.dtype)
        grad = shares.new_zeros(count, points, 3).index_add(1, faces.flatten(), shares)
        return (grad.to(vertices.dtype),)

    def _set_up(self, vertices: Tensor, faces: Tensor, height: int, width: int, near: float) -> tuple[Tensor, Tensor]:
        count, number = len(vertices), len(faces)
        records = vertices.new_empty(count, number, 16, dtype=torch.float64)
        boxes = faces.new_empty(count, number, 4)
        tensors = (vertices.contiguous(), faces.contiguous(), records, boxes)
        sizes = (*vertices.shape[:2], number, height, width, near)
        _cuda.launch_threads("mesh_set_up", count * number, *tensors, *sizes, dtype=vertices.dtype)
        return records, boxes


def _check_range(vertices: Tensor, faces: Tensor) -> None:
    if faces.numel():
        low, high = (int(value) for value in faces.aminmax())
        if low < 0 or high >= vertices.shape[1]:
            raise ValueError(f"mesh_rasterize: faces name vertices {low}..{high}: there are {vertices.shape[1]}")


def _edge_values(corners: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Twice the signed area that a point spans with the edge opposite each corner; corners M×3×3, x and y M."""
    start, end = corners.roll(-1, dims=1), corners.roll(-2, dims=1)
    step = end - start
    return step[..., 0] * (y[:, None] - start[..., 1]) - step[..., 1] * (x[:, None] - start[..., 0])


def _winners(vertices: Tensor, faces: Tensor, height: int, width: int, near: float) -> Tensor:
    """The triangle H×W that each pixel shows: all triangles against all pixels, in double precision."""
    y = torch.arange(height, device=vertices.device, dtype=vertices.dtype)[None, :, None]
    x = torch.arange(width, device=vertices.device, dtype=vertices.dtype)[None, None, :]
    nearest = vertices.new_full((height, width), torch.inf)
    winner = torch.full((height, width), -1, device=vertices.device)
    for first in range(0, len(faces), max(1, _CHUNK // (height * width))):
        corners = vertices[faces[first : first + max(1, _CHUNK // (height * width))]]
        (x0, x1, x2), (y0, y1, y2), z = corners[..., 0].unbind(1), corners[..., 1].unbind(1), corners[..., 2]
        area = (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0)
        covered = (corners.isfinite().all(2).all(1) & (z > near).all(1) & (area != 0))[:, None, None]
        edges = []
        for (ax, ay), (bx, by) in (((x1, y1), (x2, y2)), ((x2, y2), (x0, y0)), ((x0, y0), (x1, y1))):
            swap = (ax > bx) | ((ax == bx) & (ay > by))
            ax, bx = torch.where(swap, bx, ax), torch.where(swap, ax, bx)
            ay, by = torch.where(swap, by, ay), torch.where(swap, ay, by)
            sign = torch.where((area > 0) ^ swap, 1.0, -1.0).to(area)
            ax, ay, dx, dy = (t[:, None, None] for t in (ax, ay, sign * (bx - ax), sign * (by - ay)))
            edge = dx * (y - ay) - dy * (x - ax)
            closed = (dy < 0) | ((dy == 0) & (dx > 0))
            covered = covered & ((edge > 0) | ((edge == 0) & closed))
            edges.append(edge)
        parts = [edge * (1 / z[:, k, None, None]) for k, edge in enumerate(edges)]
        depth = (edges[0] + edges[1] + edges[2]) / (parts[0] + parts[1] + parts[2])
        depth = torch.where(covered, depth, torch.inf)
        least = depth.amin(0)
        index = torch.arange(first, first + len(corners), device=faces.device)[:, None, None]
        lowest = torch.where(depth == least, index, len(faces)).amin(0)
        closer = least < nearest
        winner, nearest = torch.where(closer, lowest, winner), torch.where(closer, least, nearest)
    return winner


mesh_rasterize = MeshRasterize()


def interpolate_attributes(attributes: Tensor, faces: Tensor, triangle: Tensor, barycentrics: Tensor) -> Tensor:
    """What the vertices carry, at the pixels of a rasterised mesh; 0 where there is no triangle.

    Differentiable in the attributes and the barycentrics.

    Args:
        attributes: N×V×C, or V×C shared by the batch.
        faces: F×3 integers.
        triangle: N×H×W, as from :data:`mesh_rasterize`.
        barycentrics: N×H×W×3, likewise.

    Returns:
        N×C×H×W in channels-last memory.
    """
    count, height, width = triangle.shape
    points, channels = attributes.shape[-2:]
    corners = faces.long().index_select(0, triangle.clamp(min=0).flatten().long()) if len(faces) else None
    if corners is None:
        return attributes.new_zeros(count, channels, height, width)
    if attributes.dim() == 3:
        image = torch.arange(count, device=triangle.device).repeat_interleave(height * width)
        corners = corners + image[:, None] * points
        attributes = attributes.reshape(-1, channels)
    weight = barycentrics.reshape(-1, 3)  # 0 where there is no triangle
    total = sum(attributes.index_select(0, corners[:, k]) * weight[:, k, None] for k in range(3))
    return total.view(count, height, width, channels).permute(0, 3, 1, 2)
