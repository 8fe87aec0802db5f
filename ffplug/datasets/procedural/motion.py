"""Motion of a layer: a smooth map from the layer's own plane to the image plane for every time, with its inverse.

The map is a projective (or affine) matrix after a chain of elastic shears. A shear moves points along a direction by a
function of the coordinate across it, so its inverse is the same shear with the opposite sign: the whole map is inverted
in closed form, and flow is exact to rounding at any magnitude of deformation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Oscillation:
    """A smooth signal of time whose steepest change is ``rate`` per frame: layers move without leaving for ever."""

    rate: float = 0.0
    period: float = 12.0
    phase: float = 0.0

    def __call__(self, time: float) -> float:
        """Return the value at ``time`` in frames."""
        pulse = 2 * np.pi / self.period
        return self.rate / pulse * float(np.sin(pulse * time + self.phase))


@dataclass(frozen=True)
class Shear:
    """A wave that moves points along ``direction`` (radians) by ``amplitude`` pixels at most, and travels with time."""

    direction: float
    amplitude: float
    wavelength: float
    period: float
    phase: float

    def displace(self, x: np.ndarray, y: np.ndarray, time: float, sign: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the points moved by the shear (``sign`` 1) or moved back (-1)."""
        c, s = np.cos(self.direction), np.sin(self.direction)
        angle = 2 * np.pi * (time / self.period) + self.phase
        shift = np.sin((2 * np.pi / self.wavelength) * (c * y - s * x) + angle)
        shift *= sign * self.amplitude
        return x + c * shift, y + s * shift


@dataclass(frozen=True)
class LayerMotion:
    """Where a layer's points are at any time: shears, then scale, rotation, perspective and translation.

    Coordinates are pixels, x right and y down; the layer's plane has its origin at the layer's centre. Translations
    (``shift_x``, ``shift_y``) add up: the camera's and the layer's own. Rotation is in radians, zoom and stretch are
    natural logarithms of factors, perspective is in 1/pixel.
    """

    centre: tuple[float, float]
    angle: float = 0.0
    shift_x: tuple[Oscillation, ...] = ()
    shift_y: tuple[Oscillation, ...] = ()
    rotation: Oscillation = Oscillation()
    zoom: Oscillation = Oscillation()
    stretch: Oscillation = Oscillation()
    perspective_x: Oscillation = Oscillation()
    perspective_y: Oscillation = Oscillation()
    shears: tuple[Shear, ...] = ()

    def matrix(self, time: float) -> np.ndarray:
        """Return the 3×3 projective matrix at ``time``, applied after the shears."""
        turn = self.angle + self.rotation(time)
        zoom, stretch = self.zoom(time), self.stretch(time)
        c, s = np.cos(turn), np.sin(turn)
        rotated = np.array([[c, -s], [s, c]]) * np.exp([zoom + stretch, zoom - stretch])
        tilt = np.array([self.perspective_x(time), self.perspective_y(time)])
        centre = np.array(self.centre)
        centre += sum(shift(time) for shift in self.shift_x), sum(shift(time) for shift in self.shift_y)
        matrix = np.eye(3)
        matrix[:2, :2] = rotated + np.outer(centre, tilt @ rotated)
        matrix[:2, 2] = centre
        matrix[2, :2] = tilt @ rotated
        return matrix

    def scale(self, time: float) -> float:
        """Return the linear magnification at the layer's centre."""
        return float(np.exp(self.zoom(time)))

    def forward(self, x: np.ndarray, y: np.ndarray, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Return where the layer's points ``(x, y)`` are in the image at ``time``."""
        for shear in self.shears:
            x, y = shear.displace(x, y, time, 1.0)
        x, y, _ = _project(self.matrix(time), x, y)
        return x, y

    def inverse(self, x: np.ndarray, y: np.ndarray, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the layer's points that are seen at image positions ``(x, y)`` at ``time``.

        Positions beyond the plane's horizon give NaN: nothing of the layer is seen there.
        """
        # The homogeneous coordinate is 1 at the layer's centre, so it is positive on the centre's side of the horizon.
        x, y, depth = _project(np.linalg.inv(self.matrix(time)), x, y)
        if np.min(depth, initial=1.0) <= 0:
            x, y = np.where(depth > 0, x, np.nan), np.where(depth > 0, y, np.nan)
        for shear in reversed(self.shears):
            x, y = shear.displace(x, y, time, -1.0)
        return x, y

    def bounds(self, radius: float, time: float) -> tuple[float, float, float, float]:
        """Return x0, y0, x1, y1 of a box in the image that holds every point within ``radius`` of the layer's origin.

        The box is infinite when the layer's horizon cuts the enclosing square.
        """
        reach = radius + sum(abs(shear.amplitude) for shear in self.shears)
        corners = np.array([[-reach, reach, reach, -reach], [-reach, -reach, reach, reach]])
        x, y, depth = _project(self.matrix(time), *corners)
        if depth.min() <= 0.05:
            return -np.inf, -np.inf, np.inf, np.inf
        return x.min(), y.min(), x.max(), y.max()


def _project(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Apply a 3×3 matrix to points; also return the homogeneous coordinate."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    depth = g * x + h * y + i
    if g == 0 and h == 0:
        return (a * x + b * y + c) / i, (d * x + e * y + f) / i, depth
    scale = 1 / np.where(depth == 0, np.nan, depth)
    return (a * x + b * y + c) * scale, (d * x + e * y + f) * scale, depth
