"""Depth and albedo of faces that look straight ahead, painted by formulas for many faces at once."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from ffplug_face.portraits.factors import ACTION_UNITS

FLAT = 1.03
"""Depth where there is no face."""

RELIEF = 0.4
"""Depth of a unit of height: with a field of view of 10 degrees the picture is 0.175 wide at depth 1."""

_SKIN, _SKIN_RANGE = (0.86, 0.66, 0.55), (0.08, 0.09, 0.10)
_HAIR, _HAIR_RANGE = (0.36, 0.27, 0.17), (0.27, 0.21, 0.13)


def face_maps(identity: np.ndarray, action_units: np.ndarray, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Faces in the canonical view.

    Args:
        identity: N×12, see :data:`ffplug_face.portraits.IDENTITY`.
        action_units: N×12, see :data:`ffplug_face.portraits.ACTION_UNITS`.
        size: side of the maps, pixels.

    Returns:
        Depth N×S×S, albedo N×3×S×S in 0..1, and how much of each pixel is face, N×S×S in 0..1; float32.
    """
    return _Painter(identity, action_units, size).paint()


class _Painter:
    """Places of the features, then depth and colours; x right and y down, both in -1..1 over the map."""

    def __init__(self, identity: np.ndarray, action_units: np.ndarray, size: int) -> None:
        p = torch.as_tensor(identity, dtype=torch.float32)[:, :, None, None].unbind(1)
        units = torch.as_tensor(action_units, dtype=torch.float32)[:, :, None, None].unbind(1)
        self.p, self.au = p, dict(zip(ACTION_UNITS, units, strict=True))
        line = torch.linspace(-1, 1, size)
        self.y, self.x = line[None, :, None], line[None, None, :]
        self.side = self.x.abs()  # faces are symmetric
        self.soft = 1.0 / size

        au = self.au
        self.half_width, self.half_height = 0.62 + 0.06 * p[0], 0.82 + 0.05 * p[1]
        self.jaw = 0.06 * au[26]
        height = self.half_height + torch.where(self.y > 0, self.jaw, 0.0)
        self.radius = ((self.x / self.half_width) ** 2 + (self.y / height) ** 2).sqrt()
        self.eye_x, self.eye_y, self.eye = 0.27 + 0.03 * p[2], -0.16, 0.085 + 0.015 * p[3]
        opened = 1 + 0.3 * au[1] + 0.3 * au[2] - 0.4 * au[6] - 0.6 * au[7]
        self.eye_open = 0.55 * self.eye * opened.clamp(min=0.15)
        self.nose_width, self.nose_end = 0.10 + 0.02 * p[4], self.eye_y + 0.30 + 0.04 * p[5]
        self.mouth_y = 0.42 + 0.04 * p[9]
        self.mouth = (0.24 + 0.03 * p[6]) * (1 + 0.25 * au[12] - 0.22 * au[23])
        self.lip = (0.035 + 0.01 * p[7]) * (1 - 0.6 * au[24])
        self.gap = 0.035 * au[25] + 0.09 * au[26]

    def paint(self) -> tuple[Tensor, Tensor, Tensor]:
        mask = self._below(self.radius, 1.0 - self.soft, 1.5 * self.soft)
        return FLAT - RELIEF * self._height() * (self.radius < 1), self._albedo(), mask

    def _below(self, value: Tensor, limit: Tensor | float, width: Tensor | float | None = None) -> Tensor:
        """1 where a value is below a limit, 0 where above, with a soft step of about a pixel."""
        return torch.sigmoid((limit - value) / (0.5 * (self.soft if width is None else width)))

    def _blob(self, x: Tensor | float, y: Tensor | float, wide: Tensor | float, tall: Tensor | float) -> Tensor:
        """A Gaussian on both sides of the face, ``x`` from its middle line."""
        return torch.exp(-(((self.side - x) / wide) ** 2) - ((self.y - y) / tall) ** 2)

    def _inside(self, x: Tensor | float, y: Tensor | float, wide: Tensor | float, tall: Tensor | float) -> Tensor:
        """An ellipse on both sides of the face."""
        radius = (((self.side - x) / wide) ** 2 + ((self.y - y) / tall) ** 2).sqrt()
        return self._below(radius, 1.0, self.soft / 0.06)

    def _stroke(self, points: list[tuple[Tensor | float, Tensor | float]], width: float) -> Tensor:
        """A soft polyline on both sides of the face."""
        nearest = None
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            dx, dy = x1 - x0, y1 - y0
            along = ((self.side - x0) * dx + (self.y - y0) * dy) / (dx * dx + dy * dy)
            along = along.clamp(0, 1)
            apart = (self.side - x0 - along * dx) ** 2 + (self.y - y0 - along * dy) ** 2
            nearest = apart if nearest is None else torch.minimum(nearest, apart)
        return torch.exp(-nearest / width**2)

    def _height(self) -> Tensor:
        """How far the face comes forward."""
        p, au = self.p, self.au
        # An ellipsoid that ends before its slope is endless, so that the rim stays smooth in turned views.
        height = 0.2 * ((1.12 - self.radius**2).clamp(min=0.12).sqrt() - 0.12**0.5)
        rise = ((self.y - self.eye_y) / (self.nose_end - self.eye_y)).clamp(0, 1)
        fall = self._below(self.y, self.nose_end + 0.05, 0.06)
        nose = 0.05 * (1 + 0.35 * p[8])
        height = height + nose * rise * fall * torch.exp(-((self.x / (0.6 * self.nose_width)) ** 2))
        height = height + 0.4 * nose * self._blob(0.0, self.nose_end, 0.8 * self.nose_width, 0.06)
        height = height + 0.012 * self._blob(self.eye_x, self.eye_y - 0.14, 0.16, 0.06)  # brows
        bulge = 0.012 + 0.022 * au[6] + 0.01 * au[12]
        height = height + bulge * self._blob(0.34, 0.12 - 0.04 * au[6], 0.14, 0.12)
        height = height + 0.018 * self._blob(0.0, 0.82 * self.half_height + self.jaw, 0.16, 0.10)
        height = height + 0.016 * self._blob(0.0, self.mouth_y, self.mouth, 0.09 + self.gap)
        height = height - 0.18 * self.gap * self._blob(0.0, self.mouth_y, 0.6 * self.mouth, 0.5 * self.gap + 0.02)
        return height - 0.022 * self._blob(self.eye_x, self.eye_y, 0.12, 0.08)  # sockets

    def _albedo(self) -> Tensor:
        p, au = self.p, self.au
        skin = self._colour(_SKIN, _SKIN_RANGE, p[10])
        hair = self._colour(_HAIR, _HAIR_RANGE, p[11])
        self.colours = skin * torch.ones_like(self.radius)[:, None]
        self._add(skin * skin.new_tensor((0.98, 0.78, 0.76)).view(3, 1, 1), 0.5 * self._blob(0.36, 0.14, 0.16, 0.12))
        dark = 0.45 * skin
        fold = [
            (self.nose_width + 0.05, self.nose_end - 0.03),
            (self.mouth + 0.06, self.mouth_y - 0.05 - 0.04 * au[12]),
        ]
        self._add(dark, (0.1 + 0.75 * au[10] + 0.2 * au[12]) * self._stroke(fold, 0.03))
        self._add(dark, 0.8 * au[4] * self._stroke([(0.06, -0.42), (0.05, -0.26)], 0.022))
        self._add(dark, 0.5 * au[6] * self._stroke([(self.eye_x + 0.14, -0.17), (self.eye_x + 0.22, -0.12)], 0.025))
        self._add(dark, 0.9 * self._inside(0.55 * self.nose_width, self.nose_end + 0.035, 0.03, 0.02))
        self._eyes(hair)
        self._mouth(skin)
        hairline = -0.64 * self.half_height + 0.5 * self.x**2
        self._add(hair, self._below(self.y, hairline, 0.06))
        return self.colours

    @staticmethod
    def _colour(base: tuple[float, ...], spread: tuple[float, ...], value: Tensor) -> Tensor:
        return value.new_tensor(base).view(3, 1, 1) + value.new_tensor(spread).view(3, 1, 1) * value[:, None]

    def _add(self, colour: Tensor | tuple[float, ...], amount: Tensor) -> None:
        if isinstance(colour, tuple):
            colour = amount.new_tensor(colour).view(3, 1, 1)
        self.colours = torch.lerp(self.colours, colour.expand_as(self.colours), amount[:, None])

    def _eyes(self, hair: Tensor) -> None:
        au, x, y = self.au, self.eye_x, self.eye_y
        eye = self._inside(x, y, 1.25 * self.eye, self.eye_open)
        self._add((0.93, 0.92, 0.90), eye)
        self._add((0.22, 0.16, 0.12), eye * self._inside(x, y, 0.55 * self.eye, 0.55 * self.eye))
        lid = [(x - 1.25 * self.eye, y), (x, y - self.eye_open), (x + 1.25 * self.eye, y)]
        self._add((0.15, 0.10, 0.08), 0.7 * self._stroke(lid, 0.02))
        inner, outer = -0.07 * au[1] + 0.06 * au[4], -0.08 * au[2] + 0.04 * au[4]
        brow = [
            (x - 0.13 - 0.03 * au[4], y - 0.15 + inner),
            (x, y - 0.19 + 0.5 * (inner + outer)),
            (x + 0.15, y - 0.14 + outer),
        ]
        self._add(0.6 * hair, 0.95 * self._stroke(brow, 0.034))

    def _mouth(self, skin: Tensor) -> None:
        au = self.au
        across = self.x / self.mouth
        bow = (1 - across**2).clamp(min=0)
        corner = self.mouth_y - 0.09 * au[12] + 0.08 * au[15]
        upper = corner + (self.mouth_y - 0.35 * self.gap - 0.045 * au[10] - corner) * bow
        lower = corner + (self.mouth_y + 0.65 * self.gap - corner) * bow
        within = self._below(across.abs(), 1.0, self.soft / self.mouth)
        thick = self.lip * bow.sqrt()
        lips = skin * skin.new_tensor((0.82, 0.52, 0.52)).view(3, 1, 1)
        ends = within * self._below(upper - 1.1 * thick, self.y) * self._below(self.y, lower + 1.5 * thick)
        self._add(lips, 0.9 * ends)
        opened = within * self._below(upper, self.y) * self._below(self.y, lower)
        self._add((0.20, 0.07, 0.07), opened)
        teeth = opened * self._below(self.y, upper + 0.4 * self.gap) * (self.gap / 0.05).clamp(max=1)
        self._add((0.90, 0.88, 0.84), 0.9 * teeth)
        line = torch.exp(-(((self.y - 0.5 * (upper + lower)) / 0.016) ** 2)) * within
        self._add(0.35 * skin, 0.7 * line * (1 - (self.gap / 0.03).clamp(max=1)))
