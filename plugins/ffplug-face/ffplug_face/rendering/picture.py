"""Colour: skin under light, in front of a background, with soft edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ffplug_face.models import HeadModel
from ffplug_face.rendering.body import Body
from ffplug_face.rendering.geometry import State, rasterize, vertex_normals
from ffplug_face.rendering.lighting import Light
from ffplug_face.rendering.openness import openness
from ffplug_face.rendering.skin import Skin


def shade(
    head: HeadModel,
    state: State,
    skin: Skin,
    light: Light,
    background: Tensor,
    supersample: int = 2,
    body: Body | None = None,
) -> Tensor:
    """A picture of a head.

    Args:
        head: what the vertices are of.
        state: its vertices, and after them the body's where there is one, and the camera.
        skin: colours of its surface.
        light: that falls on it.
        background: 3×H×W in 0..255, behind it.
        supersample: each pixel is the mean of its square. Only colours are smoothed, never labels or flow.
        body: what the head stands on.

    Returns:
        3×H×W, float32 in 0..255, sRGB, where the vertices are.
    """
    faces = with_body(head, body)
    surface = rasterize(State(state.vertices, state.camera.scaled(supersample)), faces)
    vertices = state.vertices.double()
    # Under the chin, which hides the sky, the collar is darker than the shirt.
    parts = [openness(head)] if body is None else [openness(head), 0.9 - 0.4 * body.collar]
    seen = torch.cat((vertices, vertex_normals(vertices, faces), torch.cat(parts)[:, None]), 1).float()
    points, normals, opened = surface.interpolate(seen, faces).split((3, 3, 1), 1)
    if body is None:
        albedo, gloss = skin.colours(head, surface)
    else:
        own = surface.triangles < len(head.faces)
        albedo, gloss = torch.empty_like(points), torch.empty_like(points[:, 0])
        albedo[own], gloss[own] = skin.colours(head, surface.row(own))
        albedo[~own], gloss[~own] = body.colours(surface.row(~own, len(head.faces)))
    normals = torch.nn.functional.normalize(normals, dim=1)
    colours = light.shade(albedo, normals, points, state.camera.position, gloss, opened[:, 0])
    # Light adds up before it is encoded, so edges are averaged in linear colours.
    cover = torch.ones_like(gloss)[:, None]
    layer = avg_pool2d(surface.scatter(torch.cat((colours.clamp(0, 1), cover), 1)), supersample)
    return 255 * to_srgb(layer[:3] + (1 - layer[3:]) * to_linear(background.to(layer) / 255))


def with_body(head: HeadModel, body: Body | None) -> Tensor:
    """The triangles of a head, and after them those of a body whose vertices follow the head's."""
    return head.faces if body is None else torch.cat((head.faces, body.faces + len(head.template)))


def to_linear(colours: Tensor) -> Tensor:
    """sRGB in 0..1 as linear colours, by the power 2.2."""
    return colours.clamp(min=0) ** 2.2


def to_srgb(colours: Tensor) -> Tensor:
    """Linear colours in 0..1 as sRGB."""
    return colours.clamp(0, 1) ** (1 / 2.2)
