"""Rasterisation of a closed, wavy ball that fills the image."""

from __future__ import annotations

import math
from typing import Any

import torch
from harness import BenchCase

from ffplug.ops import mesh_rasterize


def ball(make: Any, rings: int, sectors: int, height: int, width: int) -> tuple:
    """Projected vertices of the ball and its 2·rings·sectors triangles."""
    latitude = torch.linspace(-math.pi / 2 + 0.05, math.pi / 2 - 0.05, rings + 1)[:, None]
    longitude = torch.arange(sectors)[None] * (2 * math.pi / sectors)
    radius = 1 + 0.05 * torch.sin(5 * latitude) * torch.cos(4 * longitude)
    x, y, z = (
        radius * part
        for part in (latitude.cos() * longitude.sin(), latitude.sin() + 0 * longitude, latitude.cos() * longitude.cos())
    )
    depth = 4 - z
    scale = 1.7 * min(height, width)
    points = torch.stack((scale * x / depth + width / 2, scale * y / depth + height / 2, depth), -1).view(1, -1, 3)
    index = torch.arange((rings + 1) * sectors).view(rings + 1, sectors)
    right = index.roll(-1, 1)
    corners = (index[:-1], right[:-1], index[1:]), (right[:-1], right[1:], index[1:])
    faces = torch.cat([torch.stack(corner, -1).view(-1, 3) for corner in corners])
    return points.to(make.dtype).to(make.device), faces.to(make.device), height, width


def _case(label: str, height: int, width: int, rings: int, sectors: int, **options: Any) -> BenchCase:
    pixels, triangles = height * width, 2 * rings * sectors
    return BenchCase(
        op=mesh_rasterize,
        label=f"{label}, {triangles} triangles",
        make=lambda make: ball(make, rings, sectors, height, width),
        bytes=pixels * 20 + triangles * (24 + 12),
        flops=pixels * 2 * 25,  # both sides of the ball
        **options,
    )


CASES = [
    _case("128x128", 128, 128, 20, 25),
    _case("512x512", 512, 512, 40, 40),
    _case("512x512 with gradient", 512, 512, 40, 40, backward=True, reference=False),
    _case("1080p", 1080, 1920, 100, 100, reference=False),
    _case("4K", 2160, 3840, 200, 250, reference=False),
]
