"""Light: ambient, from directions and points with Blinn-Phong highlights, or spherical harmonics."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize


@dataclasses.dataclass(frozen=True)
class Light:
    """What falls on a surface; colours are linear RGB, about 1 in sum.

    Attributes:
        ambient: 3, from everywhere.
        directions: K×3, unit vectors in the world to distant lamps.
        colours: K×3, theirs.
        points: P×3, places of near lamps (metres); their light falls with the square of the distance.
        point_colours: P×3, theirs at one metre.
        harmonics: 9×3 coefficients of irradiance in real spherical harmonics up to degree 2 (order 1; y, z, x; xy, yz,
            3z²-1, xz, x²-y², without their normalisation), or None.
        sky: how much more of the ambient light comes from above than from below, 0..1.
        folds: how much less of the light from everywhere reaches what is not open to it, 0..1.
        wrap: 3, by how much of its strength each of a lamp's colours reaches round a surface, as light that spreads in
            skin does; 0 is Lambert's law.
        specular: strength of the highlights, 0..1.
        shininess: exponent of Blinn-Phong's highlights; more is less rough. Glossier parts have a larger one.
        intensity: factor of all of it.
    """

    ambient: Tensor
    directions: Tensor
    colours: Tensor
    points: Tensor
    point_colours: Tensor
    harmonics: Tensor | None = None
    specular: float = 0.15
    shininess: float = 24.0
    intensity: float = 1.0
    sky: float = 0.0
    folds: float = 0.0
    wrap: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def even(cls, strength: float = 1.0) -> Light:
        """Ambient light alone, under which a surface looks the same from wherever."""
        none = torch.zeros(0, 3)
        return cls(torch.full((3,), strength), none, none, none, none, specular=0.0)

    def shade(
        self,
        albedo: Tensor,
        normals: Tensor,
        points: Tensor,
        eye: Tensor,
        gloss: Tensor,
        openness: Tensor | None = None,
    ) -> Tensor:
        """Colours of surface points.

        Args:
            albedo: M×3, linear RGB in 0..1.
            normals: M×3, unit vectors in the world.
            points: M×3, places in the world.
            eye: 3, where the camera stands.
            gloss: M, factor of the highlights.
            openness: M, which share of the light from everywhere reaches them, 0..1; all of it by default.

        Returns:
            M×3, linear RGB, not clipped.
        """
        view = normalize(eye.to(points) - points, dim=1)
        # Both sides of a sheet are lit.
        normals = torch.where((normals * view).sum(1, keepdim=True) < 0, -normals, normals)
        diffuse = self.ambient.to(albedo) * (1 + self.sky * normals[:, 1:2])
        if self.harmonics is not None:
            diffuse = diffuse + (_harmonics(normals) @ self.harmonics.to(albedo)).clamp(min=0)
        if openness is not None:
            diffuse = diffuse * (1 - self.folds * (1 - openness[:, None]))
        lamps = [(direction.to(points)[None], colour.to(albedo)) for direction, colour in self._pairs()]
        for place, colour in zip(self.points, self.point_colours, strict=True):
            ray = place.to(points) - points
            square = (ray**2).sum(1, keepdim=True)
            lamps.append((ray / square.sqrt(), colour.to(albedo) / square))
        wrap = albedo.new_tensor(self.wrap)
        shininess = self.shininess * gloss.clamp(min=1) ** 1.5
        shine = torch.zeros_like(albedo)
        for direction, colour in lamps:
            facing = (normals * direction).sum(1, keepdim=True)
            diffuse = diffuse + ((facing + wrap) / (1 + wrap)).clamp(min=0) * colour
            if self.specular:
                half = normalize(direction + view, dim=1)
                highlight = (normals * half).sum(1).clamp(min=0) ** shininess
                shine = shine + torch.where(facing[:, 0] > 0, highlight, 0.0)[:, None] * colour
        return self.intensity * (albedo * diffuse + self.specular * gloss[:, None] * shine)

    def _pairs(self) -> zip:
        return zip(self.directions, self.colours, strict=True)


def _harmonics(normals: Tensor) -> Tensor:
    x, y, z = normals.unbind(1)
    terms = (torch.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y)
    return torch.stack(terms, 1)


def random_light(rng: np.random.Generator, kind: str = "mixed") -> Light:
    """Draw a light.

    Args:
        rng: what is drawn follows from it alone.
        kind: ``lamps``, ambient and 1 to 3 distant lamps; ``harmonics``; or ``mixed``, either.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in ("lamps", "harmonics", "mixed"):
        raise ValueError(f"light {kind!r}: expected 'lamps', 'harmonics' or 'mixed'")
    drawn = rng.random() < 0.5
    tint = 1 + rng.normal(0, 0.03, 3)
    none = torch.zeros(0, 3)
    gloss = {"specular": float(rng.uniform(0.05, 0.25)), "shininess": float(rng.uniform(12, 48)), "folds": 1.0}
    if kind == "harmonics" or (kind == "mixed" and drawn):
        coefficients = rng.normal(0, 1, (9, 1)) * np.array([0, 0.2, 0.2, 0.2, 0.08, 0.08, 0.05, 0.08, 0.08])[:, None]
        coefficients[0] = rng.uniform(0.7, 0.95)
        coefficients[2] = abs(coefficients[2])  # light comes from the front
        harmonics = torch.tensor(coefficients * tint * (1 + rng.normal(0, 0.04, (9, 3))), dtype=torch.float32)
        return Light(torch.zeros(3), none, none, none, none, harmonics=harmonics, **gloss)
    number = int(rng.integers(1, 4))
    directions = np.stack([rng.normal(0, 0.7, number), rng.normal(0.4, 0.4, number), np.ones(number)], 1)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    strengths = rng.dirichlet(np.ones(number))[:, None] * rng.uniform(0.5, 0.8)
    colours = strengths * tint * (1 + rng.normal(0, 0.08, (number, 3)))
    ambient = rng.uniform(0.25, 0.5) * tint * (1 + rng.normal(0, 0.03, 3))
    numbers = (torch.tensor(value, dtype=torch.float32) for value in (ambient, directions, colours))
    spread = rng.uniform(0.2, 0.45)
    return Light(
        *numbers, none, none, **gloss, sky=float(rng.uniform(0.1, 0.5)), wrap=(spread, 0.5 * spread, 0.35 * spread)
    )
