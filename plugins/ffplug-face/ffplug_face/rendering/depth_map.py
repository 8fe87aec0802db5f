"""Depth maps as meshes: back-projection, change of view, normals, and rasterisation on ``mesh_rasterize``.

x goes right, y down, z away from the camera; a depth map belongs to a square picture whose pixel centres are integers.
The camera is that of Wu et al. (CVPR 2020, "Unsupervised Learning of Probably Symmetric Deformable 3D Objects").
"""

from __future__ import annotations

import dataclasses
import functools
import math

import torch
from torch import Tensor

from ffplug.ops import interpolate_attributes, mesh_rasterize


@dataclasses.dataclass(frozen=True)
class DepthCamera:
    """A pinhole camera for square depth maps, and how a view turns what it sees.

    Attributes:
        size: side of the pictures, pixels.
        field_of_view: between the centres of the first and the last pixel of a row, degrees.
        centre: depth of the point that views turn about.
        wide: project with the field of view between the picture's borders instead, so that an identity view magnifies
            by size/(size-1); back-projection stays as it is. LatentFace's released networks were trained so.
    """

    size: int
    field_of_view: float = 10.0
    centre: float = 1.0
    wide: bool = False

    @property
    def middle(self) -> float:
        """The principal point, pixels."""
        return (self.size - 1) / 2

    @property
    def focal(self) -> float:
        """Focal length, pixels."""
        return self.middle / math.tan(math.radians(self.field_of_view) / 2)

    def back_project(self, depth: Tensor) -> Tensor:
        """Points N×H×W×3 of depth maps N×H×W."""
        steps = (torch.arange(self.size, device=depth.device, dtype=depth.dtype) - self.middle) / self.focal
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        return torch.stack((x, y, torch.ones_like(x)), -1) * depth[..., None]

    def project(self, points: Tensor) -> Tensor:
        """x and y in pixels, and the depth: points ...×3 to ...×3."""
        focal = self.focal * (self.size / (self.size - 1) if self.wide else 1.0)
        return torch.cat((points[..., :2] / points[..., 2:] * focal + self.middle, points[..., 2:]), -1)

    def turn(self, points: Tensor, view: Tensor) -> Tensor:
        """Points N×...×3 seen in views N×6: turned about (0, 0, centre), then moved."""
        rotation, move, pivot = self._view(points, view)
        return torch.einsum("nij,n...j->n...i", rotation, points - pivot) + pivot + move

    def turn_back(self, points: Tensor, view: Tensor) -> Tensor:
        """The inverse of :meth:`turn`."""
        rotation, move, pivot = self._view(points, view)
        return torch.einsum("nji,n...j->n...i", rotation, points - move - pivot) + pivot

    def _view(self, points: Tensor, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        move = view[:, 3:].view(-1, *[1] * (points.dim() - 2), 3)
        return rotations(view[:, :3]), move, points.new_tensor((0.0, 0.0, self.centre))


def rotations(angles: Tensor) -> Tensor:
    """Rotation matrices N×3×3 of angles N×3 (radians) about x, then y, then z."""
    cosine, sine = angles.cos().unbind(1), angles.sin().unbind(1)
    zero, one = torch.zeros_like(cosine[0]), torch.ones_like(cosine[0])

    def matrix(*rows: Tensor) -> Tensor:
        return torch.stack(rows, 1).view(-1, 3, 3)

    about_x = matrix(one, zero, zero, zero, cosine[0], -sine[0], zero, sine[0], cosine[0])
    about_y = matrix(cosine[1], zero, sine[1], zero, one, zero, -sine[1], zero, cosine[1])
    about_z = matrix(cosine[2], -sine[2], zero, sine[2], cosine[2], zero, zero, zero, one)
    return about_z @ about_y @ about_x


@functools.lru_cache(maxsize=8)
def grid_faces(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Triangles 2(H-1)(W-1)×3 of a grid's vertices in reading order: all upper left ones, then all lower right ones."""
    index = torch.arange(height * width, device=device).view(height, width)
    corner, right, below, across = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    upper = torch.stack((corner, below, right), -1).view(-1, 3)
    lower = torch.stack((right, below, across), -1).view(-1, 3)
    return torch.cat((upper, lower))


def depth_normals(points: Tensor) -> Tensor:
    """Unit normals N×H×W×3 of points N×H×W×3, away from the camera (+z); the border repeats its neighbours'."""
    along = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    normal = torch.linalg.cross(along, down)
    normal = normal / (normal.norm(dim=-1, keepdim=True) + 1e-7)
    return torch.nn.functional.pad(normal.movedim(-1, 1), (1, 1, 1, 1), mode="replicate").movedim(1, -1)


def lambertian(normals: Tensor, light: Tensor) -> tuple[Tensor, Tensor]:
    """Shading by one distant light.

    Args:
        normals: N×H×W×3, as from :func:`depth_normals`.
        light: N×4: ambient and diffuse strength, and the direction's x and y where its z is 1; it points away from the
            camera, as normals do.

    Returns:
        How much light falls on each pixel, N×H×W, and its diffuse part before the strength, in 0..1.
    """
    direction = torch.cat((light[:, 2:], torch.ones_like(light[:, :1])), 1)
    direction = direction / direction.norm(dim=1, keepdim=True)
    diffuse = torch.einsum("nhwc,nc->nhw", normals, direction).clamp(min=0)
    return light[:, 0, None, None] + light[:, 1, None, None] * diffuse, diffuse


def rasterize_depth_map(
    camera: DepthCamera, depth: Tensor, view: Tensor, attributes: Tensor | None = None, near: float = 1e-6
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Show depth maps in other views; differentiable in depth, view and attributes, not across silhouettes.

    Args:
        camera: of both pictures.
        depth: N×S×S; a vertex that is not finite is left out with its triangles.
        view: N×6: turns about x, y, z in radians, then moves along them.
        attributes: N×C×S×S that the depth map's pixels carry.
        near: least depth that is drawn.

    Returns:
        Depth N×S×S (0 where nothing is), where something is N×S×S bool, and the attributes N×C×S×S (0 where nothing
        is), or None.
    """
    size = camera.size
    vertices = camera.project(camera.turn(camera.back_project(depth), view)).flatten(1, 2)
    faces = grid_faces(size, size, depth.device)
    weights, seen, triangle = mesh_rasterize(vertices, faces, size, size, near)
    shown = None
    if attributes is not None:
        carried = attributes.flatten(2).transpose(1, 2)
        shown = interpolate_attributes(carried, faces, triangle, weights.to(carried.dtype))
    return seen, triangle >= 0, shown
