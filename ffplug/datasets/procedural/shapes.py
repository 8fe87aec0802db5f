"""Implicit shapes as signed distances in pixels of their own layer: negative inside, zero on the contour.

The sign decides which layer owns a pixel (flow and occlusion use nothing else); the magnitude near the contour gives
the anti-aliased coverage of the picture. Far from the contour the distance may be approximate, its sign never is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

_TINY = 1e-12


class Shape(Protocol):
    """A region of the layer's plane around the origin."""

    radius: float
    """Radius in pixels of a disc about the origin that holds the shape."""

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the signed distance in pixels of the points ``(x, y)``, negative inside."""
        ...


@dataclass(frozen=True)
class Ellipse:
    """An axis-parallel ellipse with semi-axes ``a`` and ``b`` in pixels."""

    a: float
    b: float

    @property
    def radius(self) -> float:
        """Radius in pixels of the enclosing disc."""
        return max(self.a, self.b)

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the signed distance, to first order near the contour."""
        u, v = x / self.a, y / self.b
        level = np.hypot(u, v)
        slope = np.hypot(u / self.a, v / self.b)
        return (level - 1) * (level + _TINY) / (slope + _TINY / min(self.a, self.b))


@dataclass(frozen=True)
class Blob:
    """A smooth closed contour ``r(angle) = size * (1 + sum of amplitude_k * cos(k * angle + phase_k))``, k = 2, 3, …

    The amplitudes must sum to less than 1 in absolute value.
    """

    size: float
    amplitudes: tuple[float, ...]
    phases: tuple[float, ...]

    @property
    def radius(self) -> float:
        """Radius in pixels of the enclosing disc."""
        return self.size * (1 + sum(abs(a) for a in self.amplitudes))

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the signed distance, to first order near the contour."""
        angle, r = np.arctan2(y, x), np.hypot(x, y)
        contour, slope = np.full_like(r, self.size), np.zeros_like(r)
        for k, (amplitude, phase) in enumerate(zip(self.amplitudes, self.phases, strict=True), start=2):
            contour += self.size * amplitude * np.cos(k * angle + phase)
            slope -= self.size * amplitude * k * np.sin(k * angle + phase)
        return (r - contour) / np.sqrt(1 + (slope / contour) ** 2)


@dataclass(frozen=True)
class Polygon:
    """A simple polygon, convex or not; ``vertices`` are (x, y) pairs in order. The distance is exact."""

    vertices: tuple[tuple[float, float], ...]

    @property
    def radius(self) -> float:
        """Radius in pixels of the enclosing disc."""
        return float(np.hypot(*np.transpose(self.vertices)).max())

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the exact signed distance (even-odd rule for the sign)."""
        squared = np.full(np.shape(x), np.inf)
        inside = np.zeros(np.shape(x), bool)
        for (ax, ay), (bx, by) in zip(self.vertices, self.vertices[1:] + self.vertices[:1], strict=True):
            ex, ey = bx - ax, by - ay
            wx, wy = x - ax, y - ay
            along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
            np.minimum(squared, (wx - ex * along) ** 2 + (wy - ey * along) ** 2, out=squared)
            crosses = (wy >= 0) != (y >= by)
            inside ^= crosses & ((ex * wy > ey * wx) == (ey > 0))
        return np.where(inside, -1.0, 1.0) * np.sqrt(squared)


@dataclass(frozen=True)
class Ring:
    """The band of half-width ``half_width`` pixels on both sides of another shape's contour."""

    shape: Shape
    half_width: float

    @property
    def radius(self) -> float:
        """Radius in pixels of the enclosing disc; twice the half-width allows for first-order distances."""
        return self.shape.radius + 2 * self.half_width

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the signed distance; nothing is inside beyond :attr:`radius`."""
        band = np.abs(self.shape.distance(x, y)) - self.half_width
        return np.maximum(band, np.hypot(x, y) - self.radius)


@dataclass(frozen=True)
class Bars:
    """A fence: parallel bars ``width`` thick every ``pitch`` pixels, cut to a rectangle, tied by one crossbar."""

    half_length: float
    half_height: float
    pitch: float
    width: float

    @property
    def radius(self) -> float:
        """Radius in pixels of the enclosing disc."""
        return float(np.hypot(self.half_length, self.half_height))

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the signed distance."""
        bars = np.abs(np.mod(x + self.pitch / 2, self.pitch) - self.pitch / 2) - self.width / 2
        grid = np.minimum(bars, np.abs(y) - self.width / 2)
        return np.maximum(grid, np.maximum(np.abs(x) - self.half_length, np.abs(y) - self.half_height))


@dataclass(frozen=True)
class WithHoles:
    """A shape from which round holes ``(x, y, radius)`` are cut: what lies behind shows through."""

    shape: Shape
    holes: tuple[tuple[float, float, float], ...]

    @property
    def radius(self) -> float:
        """Radius in pixels of the enclosing disc."""
        return self.shape.radius

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the signed distance."""
        result = self.shape.distance(x, y)
        for hx, hy, radius in self.holes:
            result = np.maximum(result, radius - np.hypot(x - hx, y - hy))
        return result


def _polar_polygon(radii: np.ndarray, angles: np.ndarray) -> Polygon:
    corners = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    return Polygon(tuple((float(x), float(y)) for x, y in corners))


def random_shape(rng: np.random.Generator, size: float) -> Shape:
    """Draw a shape of about ``size`` pixels radius: ellipse, blob, polygon, star, ring or fence, some with holes."""
    kind = rng.choice(["ellipse", "blob", "polygon", "star", "ring", "bars"], p=[0.18, 0.3, 0.2, 0.1, 0.12, 0.1])
    shape: Shape
    if kind == "ellipse":
        shape = Ellipse(size, size * rng.uniform(0.45, 1.0))
    elif kind == "polygon":
        corners = int(rng.integers(3, 8))
        angles = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * 2 * np.pi / corners
        shape = _polar_polygon(size * rng.uniform(0.75, 1.15, corners), angles)
    elif kind == "star":
        points = int(rng.integers(4, 8))
        angles = np.arange(2 * points) * np.pi / points
        shape = _polar_polygon(size * np.where(np.arange(2 * points) % 2, rng.uniform(0.4, 0.7), 1.15), angles)
    elif kind == "bars":
        width = max(2.0, size * rng.uniform(0.06, 0.15))
        return Bars(size * 1.2, size * rng.uniform(0.5, 1.0), width * rng.uniform(3.0, 6.0), width)
    else:
        amplitudes = rng.uniform(-1, 1, 4) * np.array([0.22, 0.14, 0.08, 0.05])
        shape = Blob(size, tuple(map(float, amplitudes)), tuple(map(float, rng.uniform(0, 2 * np.pi, 4))))
        if kind == "ring":
            return Ring(shape, size * rng.uniform(0.1, 0.25))
    if rng.random() < 0.25:
        holes = []
        for angle in rng.uniform(0, 2 * np.pi) + np.arange(rng.integers(1, 4)) * 2.1:
            reach = size * rng.uniform(0.2, 0.45)
            holes.append((float(reach * np.cos(angle)), float(reach * np.sin(angle)), size * rng.uniform(0.1, 0.25)))
        shape = WithHoles(shape, tuple(holes))
    return shape
