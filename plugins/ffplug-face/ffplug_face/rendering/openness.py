"""How open to the light from everywhere each part of a head is, so that sockets and folds are darker."""

from __future__ import annotations

import math
import weakref

import torch
from torch import Tensor

from ffplug.ops import mesh_rasterize
from ffplug_face.models import HeadModel
from ffplug_face.rendering.geometry import vertex_normals

_SIDE = 96  # pixels of the pictures by which it is found
_VIEWS = 32
_SLACK = 0.004  # metres by which a vertex may lie behind the surface that hides it
_LEAST = 0.35  # what light from skin to skin brings everywhere

_known: weakref.WeakKeyDictionary[HeadModel, Tensor] = weakref.WeakKeyDictionary()


def openness(head: HeadModel) -> Tensor:
    """The share of the light from everywhere that reaches each vertex of the mean head, V (float32, 0..1).

    Found once per head, from pictures of it from all sides.
    """
    if head not in _known:
        _known[head] = _find(head.template.double().cpu(), head.faces.cpu())
    return _known[head].to(head.template.device)


@torch.no_grad()
def _find(vertices: Tensor, faces: Tensor) -> Tensor:
    # A spiral of directions spread evenly over the sphere.
    number = torch.arange(_VIEWS, dtype=torch.float64) + 0.5
    height, turn = 1 - 2 * number / _VIEWS, number * math.pi * (3 - math.sqrt(5))
    ring = (1 - height**2).sqrt()
    towards = torch.stack((ring * turn.cos(), height, ring * turn.sin()), 1)
    across = torch.nn.functional.normalize(torch.stack((towards[:, 2], 0 * height, -towards[:, 0]), 1), dim=1)
    axes = torch.stack((across, torch.linalg.cross(towards, across), towards), 1)  # views×3×3
    centred = vertices - (vertices.amin(0) + vertices.amax(0)) / 2
    radius = centred.norm(dim=1).max()
    x, y, near = torch.einsum("nij,vj->inv", axes, centred)
    # From a thousand times as far away as it is large, all rays are parallel.
    points = torch.stack(
        ((x / radius + 1) * (_SIDE - 1) / 2, (y / radius + 1) * (_SIDE - 1) / 2, 1e3 * radius - near), -1
    )
    _, depth, _ = mesh_rasterize(points, faces, _SIDE, _SIDE)
    depth = torch.where(depth > 0, depth, torch.inf)
    column, row = points[..., 0].round().long(), points[..., 1].round().long()
    seen = points[..., 2] <= depth.flatten(1).gather(1, row * _SIDE + column) + _SLACK
    facing = torch.einsum("ni,vi->nv", towards, vertex_normals(vertices, faces)).clamp(min=0)
    share = (seen * facing).sum(0) / facing.sum(0).clamp(min=1e-9)
    return (_LEAST + (1 - _LEAST) * share).float()
