"""Faces with other expressions, views and lights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ffplug_latentface.models.diffusion import RepresentationDiffusion
from ffplug_latentface.models.factors import Factors


@torch.no_grad()
def mixed(model: RepresentationDiffusion, face: Tensor, other: Tensor, shares: Tensor) -> Factors:
    """Factors of a face with another's expression; view and light stay the face's.

    Args:
        model: both stages.
        face: 1×3×S×S in -1..1.
        other: the same.
        shares: N, how much of the other's expression, from 0 (the face's own code, unchanged) to 1.

    Returns:
        Of N faces.
    """
    identity, own = model.embed(face, "both").chunk(2, 1)
    _, wanted = model.embed(other, "both").chunk(2, 1)
    shares = shares.to(own)[:, None]
    codes = identity + (1 - shares) * own + shares * wanted
    return model.autoencoder.factors(face.expand(len(shares), -1, -1, -1), codes)


@torch.no_grad()
def swap_expression(
    model: RepresentationDiffusion, face: Tensor, other: Tensor, steps: int = 5, yaw: float = 30.0
) -> Tensor:
    """A sheet of pictures: expressions, views, lights.

    Args:
        model: both stages.
        face: whose identity, view and light, 1×3×S×S in -1..1.
        other: whose expression.
        steps: pictures in a row.
        yaw: largest turn, degrees.

    Returns:
        3×3S×(steps+2)S uint8: each row begins with the two photos.
    """
    path = torch.linspace(0, 1, steps)
    expressions = mixed(model, face, other, path)
    result = mixed(model, face, other, torch.ones(steps))
    view, light = torch.zeros_like(result.view), result.light.clone()
    view[:, 1] = math.radians(yaw) * (2 * path - 1)
    light[:, 2], light[:, 3] = 2 * path - 1, 0.0
    rows = []
    for factors in (expressions, result.replaced(view=view), result.replaced(light=light)):
        pictures, _ = model.autoencoder.render(factors)
        rows.append(torch.cat([*face, *other, *pictures], 2))
    return ((torch.cat(rows, 1) / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
