"""Clouds of 3D Gaussians, and Gaussians that ride on a mesh's triangles (GaussianAvatars, Qian et al., CVPR 2024)."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ffplug.datasets.base import choose
from ffplug.errors import DataError
from ffplug.ops.gaussians import rotation_matrices, spherical_harmonics

SH_FRAMES = ("world", "local")
"""Whose directions a bound Gaussian's colours are functions of: the world's, or its triangle's."""

Y0 = 0.28209479177387814
"""The spherical harmonic of degree 0."""


@dataclasses.dataclass(frozen=True)
class Splats:
    """N Gaussians, in the world or in the frames of the triangles that they are bound to.

    Attributes:
        means: N×3.
        quats: N×4 (w, x, y, z), of any length but 0.
        scales: N×3, standard deviations along the Gaussian's axes, above 0.
        opacities: N, 0..1.
        sh: N×K×3, coefficients of spherical harmonics of red, green and blue, K = 1, 4, 9 or 16.
        binding: N (int64), the triangle of each; None in the world.
        turns: N×3×3, rotations from the frames in which the colours are given to the world; None where they are given
            in the world's.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    sh: Tensor
    binding: Tensor | None = None
    turns: Tensor | None = None

    def __len__(self) -> int:
        return len(self.means)

    def colours(self, centre: Tensor) -> Tensor:
        """Colours N×3 (0 and more) seen from a point (3) of the world, as the published renderers evaluate them."""
        directions = self.means - centre
        if self.turns is not None:
            directions = (self.turns.transpose(1, 2) @ directions[..., None])[..., 0]
        return spherical_harmonics(self.sh, directions)

    def where(self, kept: Tensor) -> Splats:
        """The Gaussians that a mask (N bool) keeps."""
        parts = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Splats(**{name: None if part is None else part[kept] for name, part in parts.items()})

    def bound_to(self, vertices: Tensor, faces: Tensor, sh_frame: str = "world") -> Splats:
        """The Gaussians in the world, for a mesh V×3 with triangles F×3.

        A triangle's frame (:func:`triangle_frames`) turns, scales and moves its Gaussians. With ``sh_frame="world"``
        their colours stay functions of the world's directions, as in the published renderers; with ``"local"`` they
        turn with the triangle.

        Raises:
            DataError: they are not bound, or to a triangle that the mesh does not have.
        """
        if self.binding is None:
            raise DataError("these Gaussians are not bound to triangles: their file has no field binding_0")
        if len(self) and not 0 <= int(self.binding.min()) <= int(self.binding.max()) < len(faces):
            low, high = int(self.binding.min()), int(self.binding.max())
            raise DataError(
                f"binding_0 names the triangles {low}..{high}: the mesh has {len(faces)}; is it another tracker's mesh?"
            )
        turn, size, centre = (part[self.binding] for part in triangle_frames(vertices, faces))
        means = size[:, None] * (turn @ self.means[..., None])[..., 0] + centre
        quats = quaternions(turn @ rotation_matrices(self.quats))
        scales = size[:, None] * self.scales
        turns = turn if choose("sh_frame", sh_frame, SH_FRAMES) == "local" else None
        return dataclasses.replace(self, means=means, quats=quats, scales=scales, binding=None, turns=turns)


def triangle_frames(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Frames of the triangles of a mesh V×3, F×3: rotations F×3×3, sizes F and centres F×3.

    The rotation's columns are the direction of the first edge, the normal, and their cross product; the size is the
    mean of the first edge and of the height over it.
    """
    first, second, third = vertices[faces].unbind(1)
    edge, other = second - first, third - first
    along = torch.nn.functional.normalize(edge, dim=-1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(along, other), dim=-1)
    across = torch.linalg.cross(along, normal)
    size = (edge.norm(dim=-1) + (across * other).sum(-1).abs()) / 2
    return torch.stack((along, normal, across), -1), size, (first + second + third) / 3


def quaternions(rotations: Tensor) -> Tensor:
    """Unit quaternions N×4 (w, x, y, z) of rotations N×3×3; the greatest of the four numbers is positive."""
    m = rotations
    xx, yy, zz = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    # Rows of 4·q·qᵀ: the one with the greatest diagonal is the best conditioned.
    wx, wy, wz = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    xy, xz, yz = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    rows = torch.stack(
        (
            torch.stack((1 + xx + yy + zz, wx, wy, wz), -1),
            torch.stack((wx, 1 + xx - yy - zz, xy, xz), -1),
            torch.stack((wy, xy, 1 - xx + yy - zz, yz), -1),
            torch.stack((wz, xz, yz, 1 - xx - yy + zz), -1),
        ),
        1,
    )
    best = rows.diagonal(dim1=1, dim2=2).argmax(1)
    return torch.nn.functional.normalize(rows[torch.arange(len(m), device=m.device), best], dim=-1)
