"""Colour: skin under light, in front of a background, with soft edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ffplug_face.models import HeadModel
from ffplug_face.rendering.geometry import State, rasterize, vertex_normals
from ffplug_face.rendering.lighting import Light
from ffplug_face.rendering.skin import Skin


def shade(head: HeadModel, state: State, skin: Skin, light: Light, background: Tensor, supersample: int = 2) -> Tensor:
    """A picture of a head.

    Args:
        head: what the vertices are of.
        state: its vertices and the camera.
        skin: colours of its surface.
        light: that falls on it.
        background: 3×H×W in 0..255, behind it.
        supersample: each pixel is the mean of its square. Only colours are smoothed, never labels or flow.

    Returns:
        3×H×W, float32 in 0..255, sRGB.
    """
    fine = State(state.vertices, state.camera.scaled(supersample))
    surface = rasterize(fine, head.faces)
    mask = surface.mask
    vertices = state.vertices.double()
    seen = torch.cat((vertices, vertex_normals(vertices, head.faces)), 1).float()
    points, normals = surface.interpolate(seen, head.faces).split(3, 1)
    albedo, gloss = skin.colours(head, surface)
    normals = torch.nn.functional.normalize(normals, dim=1)
    colours = light.shade(albedo, normals, points, state.camera.position, gloss)
    layer = torch.zeros(3, *mask.shape)
    layer[:, mask] = colours.clamp(0, 1).T
    # Light adds up before it is encoded, so edges are averaged in linear colours.
    cover = avg_pool2d(mask[None].float(), supersample)
    layer = avg_pool2d(layer, supersample)
    return 255 * to_srgb(layer + (1 - cover) * to_linear(background.float() / 255))


def to_linear(colours: Tensor) -> Tensor:
    """sRGB in 0..1 as linear colours, by the power 2.2."""
    return colours.clamp(min=0) ** 2.2


def to_srgb(colours: Tensor) -> Tensor:
    """Linear colours in 0..1 as sRGB."""
    return colours.clamp(0, 1) ** (1 / 2.2)
