"""Textures as functions of continuous layer coordinates: analytic patterns, and pictures that libraries ship.

An analytic texture is evaluated exactly where it is asked for, so two frames differ by nothing but the motion. A
picture is interpolated with cubic convolution in floating point and continued by reflection.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from ffplug.errors import DataError

logger = logging.getLogger(__name__)

PICTURES = {
    "skimage": (
        "data",
        "astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png "
        "ihc.png motorcycle_left.png rocket.jpg",
    ),
    "sklearn": ("datasets/images", "china.jpg flower.jpg"),
}
"""Pictures used where the library is installed: package -> (folder inside it, file names)."""

_SUFFIXES = {".png", ".jpg", ".jpeg", ".ppm", ".bmp", ".tif", ".tiff", ".webp"}
_MAX_PICTURE = 640


class Texture(Protocol):
    """A colour for every point of a layer's plane."""

    def sample(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return RGB float32, N×3, nominally 0..255, at the N points ``(x, y)`` in pixels."""
        ...


@dataclass(frozen=True, eq=False)
class ValueNoise:
    """Smooth noise: a periodic lattice of random values, interpolated with the quintic fade.

    Args:
        lattice: G×G×C float32 values.
        basis: 2×2 matrix from pixels to lattice cells.
    """

    lattice: np.ndarray
    basis: np.ndarray

    def sample(self, points: np.ndarray) -> np.ndarray:
        """Return N×C float32 at ``points``, N×2 pixels."""
        size = len(self.lattice)
        scaled = points @ self.basis.T
        corner = np.floor(scaled)
        t = (scaled - corner).astype(np.float32)
        u, v = (t * t * t * (t * (t * 6 - 15) + 10)).T[:, :, None]
        ix, iy = corner.astype(np.int64).T
        table = self.lattice.reshape(size * size, -1)
        left, right = ix % size, (ix + 1) % size
        top, bottom = iy % size * size, (iy + 1) % size * size
        upper = table[top + left] * (1 - u) + table[top + right] * u
        lower = table[bottom + left] * (1 - u) + table[bottom + right] * u
        return upper * (1 - v) + lower * v


@dataclass(frozen=True, eq=False)
class AnalyticTexture:
    """Plane waves, value noise and soft-edged patterns, mixed into colours.

    Args:
        frequencies: K×2 wave vectors in radians per pixel.
        phases: K phases in radians.
        weights: K×C weights of the waves in each of C scalar fields.
        noise: value noise of C channels, added to the fields.
        sharpness: gain of the soft threshold for the first field; 0 leaves it smooth.
        base: RGB of the middle of the fields.
        palette: C×3 RGB change per unit of each field.
    """

    frequencies: np.ndarray
    phases: np.ndarray
    weights: np.ndarray
    noise: ValueNoise
    sharpness: float
    base: np.ndarray
    palette: np.ndarray

    def sample(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return RGB float32 at the points ``(x, y)``."""
        points = np.stack([x, y], axis=1)
        phase = points.astype(np.float32) @ self.frequencies.T.astype(np.float32) + self.phases.astype(np.float32)
        fields = np.sin(phase, out=phase) @ self.weights.astype(np.float32) + self.noise.sample(points)
        if self.sharpness:
            fields[:, 0] = np.tanh(self.sharpness * fields[:, 0])
        return fields @ self.palette.astype(np.float32) + self.base.astype(np.float32)


@dataclass(frozen=True, eq=False)
class PictureTexture:
    """A picture seen through an affine window, with a change of colours.

    Args:
        picture: H×W×3 float32 RGB, 0..255.
        origin: picture pixel (x, y) of the layer's origin.
        step: picture pixels per layer pixel, at most 1 to stay free of aliasing.
        angle: rotation of the window in radians.
        colours: 3×3 matrix from the picture's RGB (around mid grey) to the texture's.
        brightness: RGB added after it.
        grain: value noise of one channel, in grey levels, so that flat parts of the picture have texture too.
    """

    picture: np.ndarray
    origin: tuple[float, float]
    step: float
    angle: float
    colours: np.ndarray
    brightness: np.ndarray
    grain: ValueNoise

    def sample(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return RGB float32 at the points ``(x, y)``."""
        c, s = self.step * np.cos(self.angle), self.step * np.sin(self.angle)
        px = c * x - s * y + self.origin[0]
        py = s * x + c * y + self.origin[1]
        colour = cubic_sample(self.picture, px, py) - 127.5
        colour = colour @ self.colours.astype(np.float32) + (self.brightness + 127.5).astype(np.float32)
        return colour + self.grain.sample(np.stack([x, y], axis=1))


def cubic_sample(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interpolate with cubic convolution (Keys 1981, a = -1/2), continued by reflection.

    Args:
        picture: H×W×C float32.
        x: N horizontal positions in pixels.
        y: N vertical positions in pixels.

    Returns:
        N×C float32. OpenCV's ``remap`` rounds positions to 1/32 pixel, which is visible in the
        photometric error; this does not.
    """
    height, width, channels = picture.shape
    flat = picture.reshape(-1, channels)
    columns, column_weights = _cubic_taps(x, width)
    rows, row_weights = _cubic_taps(y, height)
    result = np.zeros((columns.shape[1], channels), np.float32)
    for row, row_weight in zip(rows * width, row_weights, strict=True):
        line = np.zeros_like(result)
        for column, weight in zip(columns, column_weights, strict=True):
            line += flat[row + column] * weight[:, None]
        result += line * row_weight[:, None]
    return result


def _cubic_taps(position: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the 4 reflected indices and weights of each position, both 4×N."""
    start = np.floor(position)
    t = (position - start).astype(np.float32)
    index = start.astype(np.int64) + np.arange(-1, 3)[:, None]
    period = max(2 * size - 2, 1)
    index = np.abs(index) % period
    index = np.where(index < size, index, period - index)
    near, far = t * t * (1.5 * t - 2.5) + 1, t * (t * (1 - 0.5 * t) - 0.5)
    u = 1 - t
    return index, np.stack([far, near, u * u * (1.5 * u - 2.5) + 1, u * (u * (1 - 0.5 * u) - 0.5)])


@functools.lru_cache(maxsize=32)
def _load_picture(path: str) -> np.ndarray:
    """Read a picture as float32 RGB, shrunk so that its longer side is at most 640 pixels."""
    picture = cv2.imread(path, cv2.IMREAD_COLOR)
    if picture is None:
        raise DataError(f"{path}: not a readable picture; remove it from the texture folder or mend it")
    shrink = _MAX_PICTURE / max(picture.shape[:2])
    if shrink < 1:
        picture = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture[:, :, ::-1], np.float32)


class TextureSource:
    """Draws textures; decides once which pictures there are.

    Args:
        kind: ``'analytic'``; ``'pictures'``, those that scikit-image and scikit-learn ship; ``'mixed'``, half of each;
            or a folder with pictures of your own (its images, not its sub-folders).

    Raises:
        DataError: if ``kind`` is none of these, or the folder holds no picture.

    Where neither library is installed, ``'pictures'`` and ``'mixed'`` become ``'analytic'``, and a warning says so.
    """

    def __init__(self, kind: str = "mixed") -> None:
        self.kind = kind
        self.pictures: tuple[Path, ...] = ()
        if kind in ("pictures", "mixed"):
            self.pictures = installed_pictures()
            if not self.pictures:
                logger.warning(
                    "procedural textures: neither scikit-image nor scikit-learn is installed, so textures are analytic "
                    "patterns only; `pip install 'ffplug[textures]'` adds realistic ones"
                )
        elif kind != "analytic":
            folder = Path(kind)
            if not folder.is_dir():
                raise DataError(
                    f"textures={kind!r}: expected 'analytic', 'pictures', 'mixed' or a folder with pictures, "
                    "and there is no such folder"
                )
            self.pictures = tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES))
            if not self.pictures:
                raise DataError(f"{folder}: no picture in it to take textures from ({', '.join(sorted(_SUFFIXES))})")
        self.picture_share = 0.0 if not self.pictures else 0.5 if kind == "mixed" else 1.0

    def draw(self, rng: np.random.Generator, scale: float = 1.0) -> Texture:
        """Return a random texture; ``scale`` is the size of its coarse features, 1 for frames of 128×160."""
        if rng.random() < self.picture_share:
            picture = _load_picture(str(self.pictures[rng.integers(len(self.pictures))]))
            return random_picture_texture(rng, picture, scale)
        return random_analytic_texture(rng, scale)


def installed_pictures() -> tuple[Path, ...]:
    """Return the paths of the pictures that installed libraries ship, without importing the libraries."""
    found = []
    for package, (folder, names) in PICTURES.items():
        spec = importlib.util.find_spec(package)
        for location in spec.submodule_search_locations or () if spec else ():
            found += [path for path in (Path(location, folder, name) for name in names.split()) if path.is_file()]
    return tuple(found)


def random_picture_texture(rng: np.random.Generator, picture: np.ndarray, scale: float = 1.0) -> PictureTexture:
    """Draw a window of ``picture`` and a change of contrast, saturation and tint."""
    height, width = picture.shape[:2]
    grey = np.full((3, 3), 1 / 3)
    saturation = rng.uniform(0.4, 1.5)
    colours = grey + saturation * (np.eye(3) - grey)
    if rng.random() < 0.3:
        colours = colours[:, rng.permutation(3)]
    colours = colours * rng.uniform(0.8, 1.2) * rng.uniform(0.75, 1.2, 3)
    return PictureTexture(
        picture=picture,
        origin=(width * rng.uniform(0.25, 0.75), height * rng.uniform(0.25, 0.75)),
        step=rng.uniform(0.6, 1.0) / max(1.0, scale) ** 0.5,
        angle=rng.normal(0, 0.3),
        colours=colours,
        brightness=rng.uniform(-15, 35) + rng.normal(0, 8, 3),
        grain=_random_noise(rng, 1, rng.uniform(6, 14), (5, 12)),
    )


def random_analytic_texture(rng: np.random.Generator, scale: float = 1.0, waves: int = 24) -> AnalyticTexture:
    """Draw an analytic texture: wavelengths of 4 to 80 pixels times ``scale``, short ones weak, as in nature."""
    wavelengths = np.exp(rng.uniform(np.log(4), np.log(80 * max(1.0, scale)), waves))
    # A preferred direction (grain of wood, cloth) in some, none in others.
    spread = rng.choice([0.15, 0.6, np.pi])
    directions = rng.uniform(0, np.pi) + rng.uniform(-spread, spread, waves)
    frequencies = 2 * np.pi / wavelengths[:, None] * np.stack([np.cos(directions), np.sin(directions)], axis=1)
    weights = rng.normal(0, 1, (waves, 3)) * (wavelengths[:, None] / 20) ** 0.9
    weights *= np.array([0.75, 0.5, 0.35]) / np.sqrt((weights**2).sum(axis=0) / 2)
    luminance = rng.normal(0, 1, 3) * 0.35 + 1
    palette = np.stack([42 * luminance, rng.normal(0, 18, 3), rng.normal(0, 18, 3)])
    return AnalyticTexture(
        frequencies=frequencies,
        phases=rng.uniform(0, 2 * np.pi, waves),
        weights=weights,
        noise=_random_noise(rng, 3, 0.5, (10, 28 * max(1.0, scale))),
        sharpness=float(rng.choice([0.0, 0.0, 1.0, 2.2])),
        base=np.clip(rng.normal(125, 28, 3), 60, 195),
        palette=palette,
    )


def _random_noise(rng: np.random.Generator, channels: int, spread: float, cell: tuple[float, float]) -> ValueNoise:
    """Draw value noise with a standard deviation of about ``spread`` at lattice points, ``cell`` pixels apart."""
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    pitch = np.exp(rng.uniform(*np.log(cell), size=2))
    return ValueNoise(rng.normal(0, spread, (32, 32, channels)).astype(np.float32), rotation / pitch[:, None])
