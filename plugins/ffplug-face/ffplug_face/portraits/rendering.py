"""Pictures of portraits, with everything that they show."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ffplug.ops import interpolate_attributes, mesh_rasterize
from ffplug_face.portraits.factors import Portraits
from ffplug_face.portraits.surface import face_maps
from ffplug_face.rendering.depth_map import DepthCamera, depth_normals, grid_faces, lambertian, rasterize_depth_map

BACKGROUND_DEPTH = 1.2
"""Depth of a picture where there is no face."""

_BATCH = 32
_SUPERSAMPLE = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """N pictures and their ground truth, all on the same square grid.

    Attributes:
        images: N×3×S×S uint8, RGB.
        depth: N×S×S float32, the canonical depth map; 1.03 where there is no face.
        albedo: N×3×S×S float32 in 0..1, the canonical albedo.
        mask: N×S×S bool, where the canonical maps show the face.
        image_depth: N×S×S float32, depth as the picture shows it; 1.2 where there is no face.
        image_mask: N×S×S bool, where the picture shows the face.
    """

    images: Tensor
    depth: Tensor
    albedo: Tensor
    mask: Tensor
    image_depth: Tensor
    image_mask: Tensor


def render_portraits(portraits: Portraits, size: int = 64) -> Pictures:
    """Draw portraits.

    A face's canonical depth map becomes a mesh, lit in the canonical view by albedo · (ambient + diffuse ·
    max(0, n·l)), turned by the view, and rasterised with a field of view of 10 degrees; colours are smoothed at edges,
    truth is not.

    Args:
        portraits: from :func:`~ffplug_face.portraits.draw_portraits`.
        size: side of the pictures, at least 16 pixels.

    Returns:
        The pictures, in order. They follow from the portraits alone.
    """
    if size < 16:
        raise ValueError(f"render_portraits: size={size}: expected at least 16")
    parts = [_render(portraits[first : first + _BATCH], size) for first in range(0, len(portraits), _BATCH)]
    names = [field.name for field in dataclasses.fields(Pictures)]
    return Pictures(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def _render(portraits: Portraits, size: int) -> Pictures:
    camera = DepthCamera(size)
    depth, albedo, cover = face_maps(portraits.identity, portraits.action_units, size)
    view, light = torch.from_numpy(portraits.view), torch.from_numpy(portraits.light)
    amount, _ = lambertian(depth_normals(camera.back_project(depth)), light)
    lit = torch.cat(((albedo * amount[:, None]).clamp(0, 1), cover[:, None]), 1)

    face = cover > 0.02
    cut = torch.where(face, depth, torch.nan)
    image_depth, image_mask, _ = rasterize_depth_map(camera, cut, view)
    fine = size * _SUPERSAMPLE
    corners = camera.project(camera.turn(camera.back_project(cut), view)).flatten(1, 2)
    corners = torch.cat((corners[..., :2] * _SUPERSAMPLE + 0.5 * (_SUPERSAMPLE - 1), corners[..., 2:]), -1)
    faces = grid_faces(size, size)
    weights, _, triangle = mesh_rasterize(corners, faces, fine, fine)
    shown = interpolate_attributes(lit.flatten(2).transpose(1, 2), faces, triangle, weights)
    # A quarter of cover at the rim keeps the background from shining through the face's edge.
    cover = (4 * shown[:, 3:]).clamp(0, 1) * (triangle >= 0)[:, None]
    shown = torch.lerp(_backgrounds(portraits, fine), shown[:, :3], cover)
    images = torch.nn.functional.avg_pool2d(shown, _SUPERSAMPLE)
    return Pictures(
        images=(255 * images).round().to(torch.uint8).contiguous(),
        depth=depth,
        albedo=albedo,
        mask=face,
        image_depth=torch.where(image_mask, image_depth, BACKGROUND_DEPTH),
        image_mask=image_mask,
    )


def _backgrounds(portraits: Portraits, size: int) -> Tensor:
    """Plain or clouded colours, N×3×S×S."""
    pictures = []
    for seed, noisy in zip(portraits.background, portraits.noisy, strict=True):
        rng = np.random.default_rng(int(seed))
        grey, tint = rng.uniform(0.2, 0.8), rng.uniform(-0.2, 0.2, (1, 3, 1, 1))
        colour = torch.from_numpy((grey + tint).astype(np.float32))
        picture = colour.expand(1, 3, size, size)
        if noisy:
            for cells in (4, 16):
                cloud = torch.from_numpy(rng.normal(0, 0.07, (1, 3, cells, cells)).astype(np.float32))
                picture = picture + torch.nn.functional.interpolate(cloud, (size, size), mode="bicubic")
        pictures.append(picture)
    return torch.cat(pictures).clamp(0, 1)
