"""What a mesh shows in each pixel, and where that goes: surfaces, exact flow, visibility."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import torch
from torch import Tensor

from ffplug.ops import interpolate_attributes, mesh_rasterize
from ffplug_face.rendering.camera import Camera


@dataclasses.dataclass(frozen=True)
class State:
    """A mesh at one time, seen by a camera.

    Attributes:
        vertices: V×3 in the world, metres. Geometry is computed in float64 whatever their type.
        camera: that sees it.
    """

    vertices: Tensor
    camera: Camera

    def projected(self) -> Tensor:
        """The vertices V×3 (float64): x and y in pixels, depth in metres."""
        return self.camera.project(self.vertices.double())


@dataclasses.dataclass(frozen=True)
class Surface:
    """What each pixel shows of a mesh.

    Attributes:
        triangle: H×W (int32), -1 where there is no mesh.
        barycentrics: H×W×3 (float64), perspective-correct; 0 where there is no mesh.
        depth: H×W (float64), metres along the camera's axis; 0 where there is no mesh.
    """

    triangle: Tensor
    barycentrics: Tensor
    depth: Tensor

    @cached_property
    def mask(self) -> Tensor:
        """Where there is mesh, H×W bool."""
        return self.triangle >= 0

    @cached_property
    def pixels(self) -> Tensor:
        """The M pixels that show mesh, in reading order, as indices (int64) into the flattened picture."""
        return self.mask.flatten().nonzero()[:, 0]

    @cached_property
    def triangles(self) -> Tensor:
        """Their triangles, M (int64)."""
        return self.triangle.flatten().index_select(0, self.pixels).long()

    @cached_property
    def weights(self) -> Tensor:
        """Their barycentrics, M×3."""
        return self.barycentrics.flatten(0, 1).index_select(0, self.pixels)

    def interpolate(self, values: Tensor, faces: Tensor) -> Tensor:
        """What the vertices carry (V×C), at the M pixels that show mesh, in reading order: M×C."""
        weights = self.weights.to(values.dtype)
        return interpolate_attributes(values, faces, self.triangles[None, None], weights[None, None])[0, :, 0].T

    def corners(self, faces: Tensor) -> Tensor:
        """The vertices M×3 of the triangles of the M pixels that show mesh, in reading order."""
        return faces.index_select(0, self.triangles)

    def scatter(self, values: Tensor) -> Tensor:
        """Values of the M pixels (M×C) as a picture C×H×W, 0 elsewhere."""
        picture = values.new_zeros(values.shape[1], self.triangle.numel())
        return picture.index_copy(1, self.pixels, values.T).unflatten(1, self.triangle.shape)

    def part(self, first: int, last: int) -> Surface:
        """What is seen of the triangles ``first`` to ``last`` (not included), numbered from 0; the others hide it."""
        own = (self.triangle >= first) & (self.triangle < last)
        return Surface(
            torch.where(own, self.triangle - first, -1),
            torch.where(own[..., None], self.barycentrics, 0.0),
            torch.where(own, self.depth, 0.0),
        )

    def row(self, chosen: Tensor, first: int = 0) -> Surface:
        """Some of the M pixels (M bool) as a picture of one row, with triangles numbered from ``first``."""
        index = chosen.nonzero()[:, 0]
        triangles = self.triangles.index_select(0, index) - first
        depth = self.depth.flatten().index_select(0, self.pixels.index_select(0, index))
        return Surface(triangles.int()[None], self.weights.index_select(0, index)[None], depth[None])


def rasterize(state: State, faces: Tensor) -> Surface:
    """What each pixel of the state's camera shows.

    Differentiable in the vertices; which triangle a pixel shows has no gradient.

    Args:
        state: mesh and camera.
        faces: F×3 integers.
    """
    camera = state.camera
    barycentrics, depth, triangle = mesh_rasterize(state.projected(), faces, camera.height, camera.width)
    return Surface(triangle[0], barycentrics[0], depth[0])


def optical_flow(surface: Surface, faces: Tensor, now: State, then: State) -> Tensor:
    """Exact optical flow of the surface between two states: 2×H×W (float64) in pixels; 0 where there is no mesh.

    The point that a pixel shows is held to its triangle, moved with it, and projected by the other camera. Equal states
    give exactly zero.

    Args:
        surface: of the state ``now``.
        faces: F×3 integers.
        now: state whose pixels the flow belongs to.
        then: state that it leads to.
    """
    start = _targets(surface, faces, now)
    end = _targets(surface, faces, then)
    return surface.scatter((end - start)[:, :2])


def _targets(surface: Surface, faces: Tensor, state: State) -> Tensor:
    """Where the points that the pixels show lie in a state, M×3: x, y, depth."""
    return state.camera.project(surface.interpolate(state.vertices.double(), faces))


def visible_in(
    surface: Surface, faces: Tensor, now: State, then: State, other: Surface, tolerance: float = 0.005
) -> Tensor:
    """Which pixels show a point that the other picture shows as well: H×W bool; False where there is no mesh.

    A point is hidden if it leaves the picture, if its triangle turns its other side to the camera, or if the pixel
    nearest to it shows something that lies in front of it by more than ``tolerance`` of its depth and is neither the
    same triangle nor one beside it.

    Args:
        surface: of the state ``now``.
        faces: F×3 integers.
        now: state whose pixels are asked for.
        then: the other state.
        other: surface of the state ``then``.
        tolerance: share of the depth.
    """
    target = _targets(surface, faces, then)
    height, width = other.triangle.shape
    x, y = target[:, 0].round(), target[:, 1].round()
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (target[:, 2] > 0)
    index = torch.where(inside, y * width + x, 0.0).long()
    found, depth = other.triangle.flatten()[index].long(), other.depth.flatten()[index]
    own = surface.corners(faces)
    near = faces.index_select(0, found.clamp(min=0))
    beside = (own[:, :, None] == near[:, None]).flatten(1).any(1)
    uncovered = (found < 0) | beside | (target[:, 2] <= depth * (1 + tolerance))
    turned = _sides(now, own) * _sides(then, own) <= 0
    return surface.scatter((inside & uncovered & ~turned)[:, None])[0]


def _sides(state: State, corners: Tensor) -> Tensor:
    """Positive where triangles M×3 turn one side to the camera, negative where the other."""
    points = state.projected()[:, :2]
    a, b, c = (points.index_select(0, corner) for corner in corners.unbind(1))
    first, second = b - a, c - a
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals V×3, the mean of the triangles round each vertex by area; vertices V×3 and F×3 faces."""
    a, b, c = vertices[faces].unbind(1)
    across = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals = normals.index_add(0, faces[:, corner], across)
    return torch.nn.functional.normalize(normals, dim=1, eps=1e-20)
