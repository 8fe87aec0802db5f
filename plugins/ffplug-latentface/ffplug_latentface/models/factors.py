"""From the networks' outputs to depth, albedo, light and view, and from these to a picture."""

from __future__ import annotations

import dataclasses
import math

import torch
from ffplug_face.rendering.depth_map import DepthCamera, depth_normals, lambertian, rasterize_depth_map
from torch import Tensor

from ffplug.errors import ConfigError

NEAREST, FARTHEST = 0.9, 1.1
"""Range of canonical depth."""

MARGIN = (FARTHEST - NEAREST) / 2
BACKGROUND = FARTHEST + MARGIN
"""Depth where nothing is seen."""

BORDER = 0.7 * FARTHEST + 0.3 * NEAREST
"""Depth of the two outermost columns on either side."""

_DEGREES = 60.0
_SHIFT = 0.1

CAMERAS = ("exact", "legacy")
RECONSTRUCTIONS = ("inverse_warp", "colours")


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """What a face's picture is made of.

    Attributes:
        depth: N×S×S, canonical depth in 0.9..1.1.
        albedo: N×3×S×S in -1..1, canonical.
        light: N×4: ambient and diffuse strength in 0..1, the direction's x and y where its z is 1.
        view: N×6: turns about x, y, z in radians, then moves.
    """

    depth: Tensor
    albedo: Tensor
    light: Tensor
    view: Tensor

    def replaced(self, **changes: Tensor) -> Factors:
        """The same with other factors, such as ``view=...``."""
        return dataclasses.replace(self, **changes)

    def with_mirrored(self) -> Factors:
        """2N faces: these, then the same with depth and albedo mirrored; light and view stay."""
        return Factors(
            torch.cat((self.depth, self.depth.flip(-1))),
            torch.cat((self.albedo, self.albedo.flip(-1))),
            self.light.repeat(2, 1),
            self.view.repeat(2, 1),
        )


def depth_of(raw: Tensor) -> Tensor:
    """Canonical depth N×S×S of the decoder's output N×1×S×S."""
    raw = raw[:, 0].float()
    squashed = torch.tanh(raw - raw.mean((1, 2), keepdim=True))
    depth = (1 + squashed) / 2 * FARTHEST + (1 - squashed) / 2 * NEAREST
    inner = depth[..., 2:-2]
    return torch.nn.functional.pad(inner, (2, 2), value=BORDER)


def light_of(raw: Tensor) -> Tensor:
    """Light N×4 of the network's output N×4 in -1..1."""
    raw = raw.float()
    return torch.cat((raw[:, :2] / 2 + 0.5, raw[:, 2:]), 1)


def view_of(raw: Tensor, depth_range: float = 0.0) -> Tensor:
    """View N×6 of the network's output N×6 in -1..1; faces move along z by at most ``depth_range``."""
    scale = [math.radians(_DEGREES)] * 3 + [_SHIFT, _SHIFT, depth_range]
    return raw.float() * raw.new_tensor(scale, dtype=torch.float32)


@dataclasses.dataclass(frozen=True)
class Renderer:
    """Draws factors as pictures.

    Attributes:
        size: side of the pictures.
        camera: ``exact``, or ``legacy``: the mesh is projected as LatentFace's public code does, magnified by
            size/(size-1).
        reconstruct: ``inverse_warp`` draws the depth alone and looks the colours up in the canonical picture;
            ``colours`` draws the mesh's colours.
    """

    size: int = 64
    camera: str = "exact"
    reconstruct: str = "inverse_warp"

    def __post_init__(self) -> None:
        for name, allowed in (("camera", CAMERAS), ("reconstruct", RECONSTRUCTIONS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(allowed)}")

    @property
    def mesh_camera(self) -> DepthCamera:
        """The camera that meshes are drawn with."""
        return DepthCamera(self.size, wide=self.camera == "legacy")

    def canonical(self, factors: Factors) -> Tensor:
        """The lit face as it looks straight ahead, N×3×S×S; from -1, not clamped above."""
        points = DepthCamera(self.size).back_project(factors.depth)
        amount, _ = lambertian(depth_normals(points), factors.light)
        return (factors.albedo / 2 + 0.5) * amount[:, None] * 2 - 1

    def depth(self, factors: Factors) -> Tensor:
        """Depth N×S×S in the factors' view, 1.2 where nothing is seen."""
        seen, hit, _ = rasterize_depth_map(self.mesh_camera, factors.depth, factors.view)
        return torch.where(hit, seen, BACKGROUND)

    def sampling_grid(self, depth: Tensor, view: Tensor) -> Tensor:
        """Where in the canonical picture the pixels of a depth map N×S×S lie, N×S×S×2 in -1..1."""
        camera = DepthCamera(self.size)
        depth = depth.clamp(NEAREST - MARGIN, FARTHEST + MARGIN)
        places = camera.project(camera.turn_back(camera.back_project(depth), view))
        return places[..., :2] / camera.middle - 1

    def render(self, factors: Factors) -> tuple[Tensor, Tensor]:
        """Pictures N×3×S×S from -1, and their depth N×S×S (1.2 where nothing is seen); in float32."""
        canonical = self.canonical(factors)
        if self.reconstruct == "colours":
            camera = self.mesh_camera
            seen, hit, colours = rasterize_depth_map(camera, factors.depth, factors.view, canonical)
            return torch.where(hit[:, None], colours, 1.0), torch.where(hit, seen, BACKGROUND)
        depth = self.depth(factors)
        grid = self.sampling_grid(depth, factors.view)
        return torch.nn.functional.grid_sample(canonical, grid, align_corners=True), depth
