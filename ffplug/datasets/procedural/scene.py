"""Scenes of moving layers, rendered at any time with exact flow and occlusion."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ffplug.datasets.procedural.effects import FINAL_STREAM, final_pass
from ffplug.datasets.procedural.motion import LayerMotion, Oscillation, Shear
from ffplug.datasets.procedural.options import REFERENCE_SIZE, SceneOptions
from ffplug.datasets.procedural.shapes import Shape, random_shape
from ffplug.datasets.procedural.textures import Texture, TextureSource


@dataclass(frozen=True, eq=False)
class Layer:
    """A textured shape in motion; without a shape it fills the plane (the background)."""

    shape: Shape | None
    texture: Texture
    motion: LayerMotion

    def near(self, x: np.ndarray, y: np.ndarray, time: float) -> np.ndarray:
        """Return which image positions may show the layer at ``time``: those in its bounding box."""
        if self.shape is None:
            return np.ones(x.shape, bool)
        x0, y0, x1, y1 = self.motion.bounds(self.shape.radius + 1, time)
        return (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)

    def distance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the signed distance of the layer's points from its contour, negative inside."""
        return np.full(x.shape, -np.inf) if self.shape is None else self.shape.distance(x, y)

    def contains(self, x: np.ndarray, y: np.ndarray, time: float) -> np.ndarray:
        """Return which image positions, shape N, show the layer at ``time`` if nothing is before it."""
        inside = self.near(x, y, time)
        inside[inside] = self.distance(*self.motion.inverse(x[inside], y[inside], time)) < 0
        return inside

    def colour(self, x: np.ndarray, y: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Return RGB float32 in 0..255 at the layer's points; shapes darken softly towards their rim."""
        rim = 1 - 0.25 * np.exp(np.minimum(distance, 0) / 5)
        return np.clip(self.texture.sample(x, y), 0, 255) * rim.astype(np.float32)[:, None]


@dataclass(frozen=True, eq=False)
class View:
    """What is seen of a scene at one time, at points of any shape S (by default all pixel centres, H×W).

    Attributes:
        time: the time in frames.
        px: horizontal image positions, float64, S.
        py: vertical image positions, float64, S.
        layer: index of the layer that each point shows, int32, S; 0 is the background.
        x: that layer's own coordinate of each point, float64, S.
        y: the same, vertically.
        image: RGB uint8, ``(*S, 3)``, the clean pass; None where colours were not asked for.
    """

    time: float
    px: np.ndarray
    py: np.ndarray
    layer: np.ndarray
    x: np.ndarray
    y: np.ndarray
    image: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Scene:
    """Layers from far (0, the background) to near (last), seen by a frame of ``size`` = (height, width) pixels.

    Times are in frames and may be any real number. Pixel centres have whole coordinates.
    """

    size: tuple[int, int]
    layers: tuple[Layer, ...]
    options: SceneOptions
    seed: tuple[int, ...]

    def view(self, time: float, points: tuple[np.ndarray, np.ndarray] | None = None, colours: bool = True) -> View:
        """See the scene at ``time``.

        Args:
            time: time in frames.
            points: image positions (x, y), any shape, float64; by default every pixel centre.
            colours: also compose the picture. Its edges are anti-aliased by coverage; ``layer`` is decided at the
                point itself.
        """
        if points is None:
            py, px = np.mgrid[: self.size[0], : self.size[1]].astype(np.float64)
        else:
            px, py = points
        flat_x, flat_y = px.ravel(), py.ravel()
        owner = np.full(flat_x.shape, -1, np.int32)
        own_x, own_y = np.empty_like(flat_x), np.empty_like(flat_y)
        clear = np.ones(flat_x.shape, np.float32)
        image = np.zeros((flat_x.size, 3), np.float32)
        for index in reversed(range(len(self.layers))):
            layer = self.layers[index]
            candidates = np.flatnonzero((clear > 0 if colours else owner < 0) & layer.near(flat_x, flat_y, time))
            if not candidates.size:
                continue
            x, y = layer.motion.inverse(flat_x[candidates], flat_y[candidates], time)
            distance = layer.distance(x, y)
            inside = (distance < 0) & (owner[candidates] < 0)
            mine = candidates[inside]
            owner[mine], own_x[mine], own_y[mine] = index, x[inside], y[inside]
            if colours:
                cover = np.nan_to_num(np.clip(0.5 - distance * layer.motion.scale(time), 0, 1))
                seen = cover > 0
                candidates, cover = candidates[seen], cover[seen].astype(np.float32)
                colour = layer.colour(x[seen], y[seen], distance[seen])
                image[candidates] += (clear[candidates] * cover)[:, None] * colour
                clear[candidates] *= 1 - cover
        shape = px.shape
        picture = np.rint(image).astype(np.uint8).reshape(*shape, 3) if colours else None
        return View(time, px, py, owner.reshape(shape), own_x.reshape(shape), own_y.reshape(shape), picture)

    def flow(self, view: View, time: float) -> tuple[np.ndarray, np.ndarray]:
        """Follow what ``view`` shows to another ``time``, forward or backward.

        Returns:
            flow: float32, ``(*S, 2)``, pixels, x right and y down; the difference of two float64 positions.
            occluded: bool, S; True where the point leaves the frame, beyond the centres of its border pixels, or lies
                behind a nearer layer at ``time``.
        """
        target_x, target_y = np.empty_like(view.px), np.empty_like(view.py)
        for index, layer in enumerate(self.layers):
            mine = view.layer == index
            if mine.any():
                target_x[mine], target_y[mine] = layer.motion.forward(view.x[mine], view.y[mine], time)
        height, width = self.size
        occluded = (target_x < 0) | (target_y < 0) | (target_x > width - 1) | (target_y > height - 1)
        for index, layer in enumerate(self.layers[1:], start=1):
            behind = (view.layer < index) & ~occluded
            occluded[behind] = layer.contains(target_x[behind], target_y[behind], time)
        flow = np.stack([target_x - view.px, target_y - view.py], axis=-1)
        return flow.astype(np.float32), occluded

    def finish(self, view: View) -> np.ndarray:
        """Return the final pass of ``view`` (all pixel centres): motion blur along the flow, fog and noise."""
        forward, _ = self.flow(view, view.time + 0.5)
        backward, _ = self.flow(view, view.time - 0.5)
        rng = np.random.default_rng([*self.seed, FINAL_STREAM, round(view.time * 1000) % 2**32])
        haze = np.random.default_rng([*self.seed, FINAL_STREAM])
        return final_pass(view.image, forward - backward, self.options, haze, rng)


def random_scene(
    seed: int | tuple[int, ...],
    size: tuple[int, int] = REFERENCE_SIZE,
    options: SceneOptions | None = None,
    textures: TextureSource | None = None,
) -> Scene:
    """Draw a scene; the same arguments give the same scene in every process.

    Args:
        seed: a non-negative number, or several.
        size: height and width of the frame in pixels.
        options: what the scene is drawn from; the 'standard' preset by default.
        textures: where textures come from; analytic ones by default.
    """
    options = options or SceneOptions()
    textures = textures or TextureSource("analytic")
    seed = (seed,) if isinstance(seed, int) else tuple(seed)
    rng = np.random.default_rng(list(seed))
    height, width = size
    unit = float(np.sqrt(height * width / (REFERENCE_SIZE[0] * REFERENCE_SIZE[1])))
    speed = unit * float(np.exp(rng.uniform(*np.log(options.speed))))
    camera = _drift(rng, options.camera * speed)
    middle = ((width - 1) / 2, (height - 1) / 2)
    background = _motion(rng, options, middle, 0.0, float(np.hypot(*size)) * 0.55, speed * 0.5, camera, _drift(rng, 0))
    layers = [Layer(None, textures.draw(rng, unit), background)]
    for depth in np.sort(rng.uniform(0, 1, rng.integers(options.layers[0], options.layers[1] + 1))):
        radius = min(size) * float(np.exp(rng.uniform(*np.log(options.size))))
        shape = random_shape(rng, radius)
        centre = (rng.uniform(-0.05, 1.05) * width, rng.uniform(-0.05, 1.05) * height)
        parallax = tuple(dataclasses.replace(part, rate=part.rate * (1 + depth)) for part in camera)
        own = _drift(rng, speed * rng.uniform(0.2, 1.0))
        motion = _motion(rng, options, centre, rng.uniform(0, 2 * np.pi), shape.radius, speed, parallax, own)
        layers.append(Layer(shape, textures.draw(rng, unit), motion))
    return Scene(tuple(size), tuple(layers), options, seed)


def _drift(rng: np.random.Generator, speed: float) -> tuple[Oscillation, Oscillation]:
    """Draw a translation of peak ``speed`` in a random direction; slow turns make it curved."""
    direction, period = rng.uniform(0, 2 * np.pi), rng.uniform(12, 24)
    phase, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-0.6, 0.6)
    return (
        Oscillation(speed * float(np.cos(direction)), period, phase),
        Oscillation(speed * float(np.sin(direction)), period, phase + bend),
    )


def _motion(
    rng: np.random.Generator,
    options: SceneOptions,
    centre: tuple[float, float],
    angle: float,
    radius: float,
    speed: float,
    *drifts: tuple[Oscillation, Oscillation],
) -> LayerMotion:
    """Draw a layer's motion: affine for all, and for some projective or elastic or both."""

    def swing(rate: float) -> Oscillation:
        return Oscillation(float(rng.uniform(-rate, rate)), rng.uniform(10, 20), rng.uniform(0, 2 * np.pi))

    rotation = min(np.radians(options.rotation), 1.5 * speed / radius)
    zoom = min(options.zoom, speed / radius)
    # The tilt swings by rate * period / 2 pi, at most 0.16 / radius here: far from turning a layer edge-on.
    tilt = min(options.perspective * speed / radius, 0.05) / radius if rng.random() < 0.5 else 0.0
    shears = []
    if rng.random() < 0.5:
        for direction in rng.uniform(0, np.pi) + np.arange(3) * np.pi / 3:
            wavelength, period = radius * rng.uniform(0.8, 2.0), rng.uniform(8, 16)
            rate = options.elastic * speed * rng.uniform(0.2, 1.0)
            # A slope of 0.3 keeps shapes recognisable; the travelling wave moves points at amplitude * 2 pi / period.
            amplitude = min(rate * period / (2 * np.pi), 0.3 * wavelength / (2 * np.pi))
            shears.append(Shear(float(direction), amplitude, wavelength, period, rng.uniform(0, 2 * np.pi)))
    return LayerMotion(
        centre=centre,
        angle=angle,
        shift_x=tuple(drift[0] for drift in drifts),
        shift_y=tuple(drift[1] for drift in drifts),
        rotation=swing(rotation),
        zoom=swing(zoom),
        stretch=swing(zoom / 2),
        perspective_x=swing(tilt),
        perspective_y=swing(tilt),
        shears=tuple(shears),
    )
