"""What is behind a person: a texture out of focus, still or moving as a camera that turns would move it."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ffplug.datasets.procedural.textures import Texture, TextureSource
from ffplug.datasets.seeding import derive_seed
from ffplug_face.rendering.camera import Camera


@dataclasses.dataclass(frozen=True, eq=False)
class Backdrop:
    """A plane of texture that shifts, turns and grows steadily in time (0..1).

    Attributes:
        texture: its colours, 0..255, at any point.
        height: of the picture, pixels.
        width: likewise.
        contrast: factor of the texture's distance from its mean.
        shift: x and y by which it moves from time 0 to 1, pixels.
        turn: angle (radians) by which it turns about the picture's middle.
        growth: natural logarithm of the factor by which it grows.
    """

    texture: Texture
    height: int
    width: int
    contrast: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    turn: float = 0.0
    growth: float = 0.0

    def _place(self, time: float) -> tuple[complex, complex, complex]:
        """The similarity of a time as z -> factor·(z - middle) + middle + shift, in complex numbers."""
        middle = complex(self.width - 1, self.height - 1) / 2
        return np.exp(time * complex(self.growth, self.turn)), middle, time * complex(*self.shift)

    def _points(self, time: float) -> np.ndarray:
        """Where the pixels H×W of a time lie on the plane, as complex numbers."""
        factor, middle, shift = self._place(time)
        y, x = np.mgrid[: self.height, : self.width]
        return (x + 1j * y - middle - shift) / factor + middle

    def picture(self, time: float) -> Tensor:
        """The picture of a time, 3×H×W float32 in 0..255."""
        points = self._points(time).ravel()
        colours = self.texture.sample(points.real, points.imag)
        if self.contrast != 1:
            colours = 127.5 + self.contrast * (colours - 127.5)
        picture = np.clip(colours, 0, 255).astype(np.float32).reshape(self.height, self.width, 3)
        return torch.from_numpy(picture).permute(2, 0, 1)

    def flow(self, time: float, then: float) -> tuple[Tensor, Tensor]:
        """Flow 2×H×W (float64, pixels) from one time to another, and where it stays inside of the picture (H×W)."""
        factor, middle, shift = self._place(then)
        end = factor * (self._points(time) - middle) + middle + shift
        y, x = np.mgrid[: self.height, : self.width]
        inside = (end.real >= 0) & (end.real <= self.width - 1) & (end.imag >= 0) & (end.imag <= self.height - 1)
        return torch.from_numpy(np.stack([end.real - x, end.imag - y])), torch.from_numpy(inside)


def draw_backdrop(seed: int, camera: Camera, kind: str, drift: float) -> Backdrop:
    """Draw a backdrop; it follows from the arguments alone.

    Args:
        seed: of the sequence.
        camera: whose picture it fills.
        kind: of texture, as the core's :class:`~ffplug.datasets.procedural.textures.TextureSource` takes it.
        drift: standard deviation of the way in shares of the picture's height.
    """
    rng = np.random.default_rng(derive_seed(seed, "background"))
    source = TextureSource(kind)
    # Behind a face in focus, patterns are soft and pale; pictures are taken as they are.
    blurred = kind == "analytic"
    texture = source.draw(rng, camera.height / (48 if blurred else 128))
    contrast = float(rng.uniform(0.35, 0.8)) if blurred else 1.0
    if not drift:
        return Backdrop(texture, camera.height, camera.width, contrast)
    motion = np.random.default_rng(derive_seed(seed, "background's motion"))
    x, y = motion.normal(0, drift * camera.height, 2).tolist()
    turn, growth = motion.normal(0, 0.5 * drift, 2).tolist()
    return Backdrop(texture, camera.height, camera.width, contrast, (x, y), turn, growth)
