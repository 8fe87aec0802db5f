"""Procedural scenes in motion: what is in them, how it moves, and where a ray meets it.

World axes: x to the right, y up, z away from where the camera starts; a unit is about a metre, time counts frames of
the output. All is a formula of time, so any frame and any pair of frames can be asked for, in any order.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ffplug.datasets.base import choose
from ffplug.datasets.seeding import derive_seed
from ffplug.errors import ConfigError, did_you_mean
from ffplug_stss.channels import OUTSIDES

STYLES = ("field", "hall", "swarm")
SKY, GROUND = 0, 1
"""Labels; the objects' follow."""

_FAR = 1e6
_SPHERE, _BOX = 0, 1
_DIFFICULTIES = {"demo": (0.5, (6, 9)), "standard": (1.0, (10, 18)), "hard": (2.0, (16, 26))}


@dataclasses.dataclass(frozen=True)
class SceneOptions:
    """What scenes are drawn from.

    Attributes:
        style: ``field`` (objects on open ground), ``hall`` (walls and pillars), ``swarm`` (things that fly about), or
            ``mixed``.
        objects: least and greatest number of spheres and boxes.
        poles: least and greatest number of thin poles.
        speed: factor of all motion.
        moving: share of the objects that move or turn.
        samples: rays per pixel and axis of the reference frames, which are box-filtered in linear light.
        far: depth that counts as 1.
        outside: what a warped frame holds where it would come from outside of the earlier one: ``black``, as published,
            or ``repeat``, the earlier frame's border.
    """

    style: str = "mixed"
    objects: tuple[int, int] = (10, 18)
    poles: tuple[int, int] = (2, 6)
    speed: float = 1.0
    moving: float = 0.6
    samples: int = 2
    far: float = 50.0
    outside: str = "black"

    def __post_init__(self) -> None:
        if self.style not in (*STYLES, "mixed"):
            near = did_you_mean(self.style, (*STYLES, "mixed"))
            raise ConfigError(f"style={self.style!r}: expected one of {', '.join(STYLES)}, mixed{near}")
        choose("outside", self.outside, OUTSIDES)
        for name in ("objects", "poles"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 64:
                raise ConfigError(f"{name}={(low, high)}: expected two numbers in order, in 0..64")
        if not (self.speed >= 0 and 0 <= self.moving <= 1 and 1 <= self.samples <= 8 and self.far > 0):
            raise ConfigError(
                f"speed={self.speed}, moving={self.moving}, samples={self.samples}, far={self.far}: expected "
                "speed >= 0, moving in 0..1, samples in 1..8 and far > 0"
            )

    @classmethod
    def preset(cls, difficulty: str = "standard", **changes: Any) -> SceneOptions:
        """The options of a difficulty (``demo``, ``standard`` or ``hard``), with changes.

        Raises:
            ConfigError: there is no such difficulty or option.
        """
        if difficulty not in _DIFFICULTIES:
            near = did_you_mean(difficulty, _DIFFICULTIES)
            raise ConfigError(f"difficulty={difficulty!r}: expected one of {', '.join(_DIFFICULTIES)}{near}")
        names = [field.name for field in dataclasses.fields(cls)]
        for name in changes:
            if name not in names:
                near = did_you_mean(name, names)
                raise ConfigError(f"option {name!r} is unknown: expected one of {', '.join(names)}{near}")
        speed, objects = _DIFFICULTIES[difficulty]
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()}
        return cls(**{"speed": speed, "objects": objects, **values})


class Camera(NamedTuple):
    """A pinhole camera at a time: position (3), and the axes right, up and forward as rows (3×3)."""

    position: Tensor
    axes: Tensor


class Poses(NamedTuple):
    """Where the objects are at a time: centres P×3 and rotations P×3×3 (object to world)."""

    centre: Tensor
    rotation: Tensor


class Hits(NamedTuple):
    """What rays meet: label N, distance N (large where it is the sky), world position, world normal and position in
    the object's own axes N×3 each.
    """

    label: Tensor
    distance: Tensor
    position: Tensor
    normal: Tensor
    own: Tensor


class Scene:
    """A ground, spheres, boxes and poles, a sun and a camera's path.

    Args:
        values: what :func:`draw_scene` has drawn, arrays by name; P objects.
        options: what they were drawn from.
        device: where rays are followed.
    """

    def __init__(
        self, values: dict[str, np.ndarray], options: SceneOptions, device: str | torch.device = "cpu"
    ) -> None:
        self.options = options
        self.device = torch.device(device)
        self._values = {
            key: torch.as_tensor(value, dtype=None if value.dtype == np.int64 else torch.float32, device=self.device)
            for key, value in values.items()
        }
        self._spheres = torch.nonzero(self._values["kind"] == _SPHERE)[:, 0]
        self._boxes = torch.nonzero(self._values["kind"] == _BOX)[:, 0]

    def camera(self, time: float) -> Camera:
        """The camera at a time: a slow drift, a sway, and turns of the head."""
        v = self._values
        phase = v["camera_rate"] * time + v["camera_phase"]
        position = v["camera_start"] + v["camera_drift"] * time + v["camera_sway"] * phase[:3].sin()
        yaw = v["camera_turn"][0] * phase[3].sin() + v["camera_spin"] * time
        pitch = v["camera_pitch"] + v["camera_turn"][1] * phase[4].sin()
        forward = torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()])
        right = torch.stack([yaw.cos(), torch.zeros_like(yaw), -yaw.sin()])
        return Camera(position, torch.stack([right, torch.linalg.cross(forward, right), forward]))

    def poses(self, time: float) -> Poses:
        """The objects at a time."""
        v = self._values
        swing = (v["rate"] * time + v["phase"]).sin()
        angle = v["angle"] + v["spin"] * time
        return Poses(v["centre"] + v["swing"] * swing[:, None], _rotation(v["axis"], angle))

    def trace(self, poses: Poses, origin: Tensor, direction: Tensor) -> Hits:
        """Follow rays to what they meet first.

        Args:
            poses: of the objects.
            origin: 3, or N×3.
            direction: N×3, of length 1.
        """
        best = torch.full_like(direction[:, 0], _FAR)
        label = torch.full_like(best, SKY, dtype=torch.int64)
        for number, distances in self._distances(poses, origin, direction):
            nearest, which = distances.min(dim=0)
            nearer = nearest < best
            best, label = torch.where(nearer, nearest, best), torch.where(nearer, number[which], label)
        position = origin + best[:, None] * direction
        centre, rotation = (torch.cat([_still(values), values]) for values in poses)
        own = _to_own(position - centre[label], rotation[label])
        normal = _from_own(self._own_normal(own, label), rotation[label])
        return Hits(label, best, torch.where((label == SKY)[:, None], direction, position), normal, own)

    def blocked(self, poses: Poses, origin: Tensor, direction: Tensor, distance: Tensor | float) -> Tensor:
        """Whether anything lies on rays before a distance, N bool; arguments as for :meth:`trace`."""
        hit = torch.zeros_like(direction[:, 0], dtype=torch.bool)
        for _, distances in self._distances(poses, origin, direction):
            hit |= (distances < distance).any(dim=0)
        return hit

    def _distances(self, poses: Poses, origin: Tensor, direction: Tensor) -> Any:
        """Yield labels and distances K×N of each sort of thing."""
        down = -origin[..., 1] / torch.where(direction[:, 1].abs() < 1e-8, 1e-8, direction[:, 1])
        ground = torch.full((1,), GROUND, device=self.device)
        yield ground, torch.where((down > 1e-4) & (down < 1e3), down, _FAR)[None]
        v = self._values
        for places, meet in ((self._spheres, _meet_spheres), (self._boxes, _meet_boxes)):
            if len(places):
                centre, rotation, size = poses.centre[places], poses.rotation[places], v["size"][places]
                turn = rotation.transpose(1, 2)
                offset = turn @ (origin.view(-1, 3).T - centre[..., None])
                yield places + GROUND + 1, meet(offset, turn @ direction.T, size[..., None])

    def _own_normal(self, own: Tensor, label: Tensor) -> Tensor:
        """The surface's normal in the object's own axes; the sky's is zero."""
        v = self._values
        up = own.new_tensor([0.0, 1.0, 0.0])
        place = (label - GROUND - 1).clamp(min=0)
        if not len(v["kind"]):
            return torch.where((label == SKY)[:, None], 0.0, up.expand_as(own))
        size, kind = v["size"][place], v["kind"][place]
        share = own / size
        face = torch.nn.functional.one_hot(share.abs().argmax(dim=1), 3) * share.sign()
        normal = torch.where((kind == _SPHERE)[:, None], share, face.to(own.dtype))
        normal = torch.where((label == GROUND)[:, None], up, normal)
        return torch.where((label == SKY)[:, None], 0.0, normal)

    def material(self, hits: Hits, footprint: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Base colour N×3, roughness N and metallic N; ``footprint`` N is a pixel's width on the surface.

        Patterns finer than a pixel fade into their mean.
        """
        v = self._values
        row = (hits.label - GROUND).clamp(min=0)
        scale = v["pattern_scale"][row]
        at = hits.own * scale[:, None] + 0.37
        wave = at.sin()
        flat = hits.label == GROUND
        both = wave[:, 0] * wave[:, 2] * torch.where(flat, 1.0, wave[:, 1])
        checker = v["checker"][row] > 0
        pattern = torch.where(checker, both.sign(), (at[:, 0] + 1.7 * at[:, 1] + 0.6 * at[:, 2]).sin())
        fade = (1.2 / (scale * footprint).clamp(min=1e-6)).clamp(max=1.0)
        share = (0.5 + 0.5 * pattern * fade)[:, None]
        colour = v["colour"][row] * share + v["other_colour"][row] * (1 - share)
        sky = (hits.label == SKY)[:, None]
        return torch.where(sky, 0.0, colour), v["roughness"][row], v["metallic"][row]

    def shade(self, hits: Hits, poses: Poses, direction: Tensor, footprint: Tensor) -> Tensor:
        """Linear RGB N×3: sun with hard shadows, sky light and highlights (Blinn-Phong)."""
        v = self._values
        colour, roughness, metallic = self.material(hits, footprint)
        sun = v["sun"]
        lifted = hits.position + 2e-3 * hits.normal
        facing = (hits.normal * sun).sum(dim=1)
        lit = (facing > 0) & ~self.blocked(poses, lifted, sun.expand_as(lifted), _FAR)
        light = torch.where(lit, facing, 0.0)[:, None]
        half = torch.nn.functional.normalize(sun - direction, dim=1)
        power = 2 / roughness.clamp(min=0.05) ** 2
        shine = torch.where(lit, (hits.normal * half).sum(dim=1).clamp(min=0) ** power, 0.0)[:, None]
        tint = 0.04 * (1 - metallic[:, None]) + metallic[:, None] * colour
        ambient = 0.28 + 0.12 * hits.normal[:, 1:2]
        shaded = colour * (1 - 0.6 * metallic[:, None]) * (ambient + 0.9 * light)
        shaded = shaded + tint * shine * (0.4 + 0.15 * power.sqrt())[:, None]
        return torch.where((hits.label == SKY)[:, None], self._sky(direction), shaded)

    def _sky(self, direction: Tensor) -> Tensor:
        """The sky's colour by direction: a gradient with a few clouds."""
        v = self._values
        height = direction[:, 1:2].clamp(0, 1).sqrt()
        across = direction[:, [0, 2]] / (direction[:, 1:2].clamp(min=0) + 0.3)
        cloud = ((3.1 * across).sin().prod(dim=1, keepdim=True) * (7.3 * across).cos().sum(dim=1, keepdim=True)).clamp(
            0, 1
        )
        return v["horizon"] * (1 - height) + v["zenith"] * height + 0.25 * cloud


def draw_scene(seed: int, index: int, options: SceneOptions | None = None, device: str | torch.device = "cpu") -> Scene:
    """Draw a scene; it follows from seed, index and options alone.

    Args:
        seed: of a set of scenes.
        index: of the scene in it.
        options: what it is drawn from.
        device: where its rays are followed.
    """
    options = options or SceneOptions()
    rng = np.random.default_rng(derive_seed(seed, "stss scene", index))
    style = STYLES[int(rng.integers(len(STYLES)))] if options.style == "mixed" else options.style
    objects = int(rng.integers(options.objects[0], options.objects[1] + 1))
    poles = int(rng.integers(options.poles[0], options.poles[1] + 1))
    things = [_draw_object(rng, style) for _ in range(objects)] + [_draw_pole(rng) for _ in range(poles)]
    things += _walls(rng) if style == "hall" else []
    count, still = len(things), 4 if style == "hall" else 0
    kind, size, centre = (
        np.array([thing[i] for thing in things], dtype) for i, dtype in enumerate((np.int64, float, float))
    )
    size, centre = size.reshape(count, 3), centre.reshape(count, 3)
    moving = (rng.random(count) < options.moving) & (np.arange(count) < objects)
    flying = style == "swarm"
    reach = rng.uniform(0.4, 2.0, count) * moving * (2.0 if flying else 1.0)
    heading = rng.normal(size=(count, 3)) * (1.0, 1.0 if flying else 0.15, 1.0)
    swing = reach[:, None] * heading / np.linalg.norm(heading, axis=1, keepdims=True).clip(1e-6)
    centre[:, 1] = np.maximum(
        centre[:, 1], np.linalg.norm(size, axis=1) * (kind == _BOX) * moving + np.abs(swing[:, 1])
    )
    axis = np.where(moving[:, None] & flying, rng.normal(size=(count, 3)), (0.0, 1.0, 0.0))
    rate = rng.uniform(0.03, 0.10, count) * options.speed
    materials = count + 1
    colour, contrast = rng.uniform(0.05, 0.95, (materials, 3)), rng.uniform(0.2, 0.7, (materials, 1))
    turned = np.where(np.arange(count) < count - still, rng.uniform(0, 2 * math.pi, count), 0.0)
    sun = rng.normal(size=3) * (1.0, 0.3, 1.0) + (0.0, 1.6, 0.0)
    values = dict(
        kind=kind,
        size=size,
        centre=centre,
        swing=swing,
        rate=rate,
        phase=rng.uniform(0, 2 * math.pi, count),
        axis=axis / np.linalg.norm(axis, axis=1, keepdims=True).clip(1e-6),
        angle=turned,
        spin=rng.uniform(-0.12, 0.12, count) * moving * options.speed,
        colour=colour,
        other_colour=colour + contrast * (rng.uniform(0.02, 0.8, (materials, 3)) - colour),
        pattern_scale=np.exp(rng.uniform(math.log(0.8), math.log(8.0), materials)),
        checker=(rng.random(materials) < 0.5).astype(np.float64),
        roughness=rng.uniform(0.08, 0.95, materials),
        metallic=(rng.random(materials) < 0.25) * rng.uniform(0.5, 1.0, materials),
        sun=sun / np.linalg.norm(sun),
        horizon=rng.uniform(0.45, 0.8, 3),
        zenith=rng.uniform((0.05, 0.15, 0.35), (0.25, 0.4, 0.75)),
        camera_start=np.array([0.0, rng.uniform(1.2, 2.4), -4.0]),
        camera_drift=rng.normal(size=3) * (0.03, 0.0, 0.05) * options.speed,
        camera_sway=rng.uniform(0.05, 0.5, 3) * (1.0, 0.4, 1.0),
        camera_rate=rng.uniform(0.03, 0.10, 5) * options.speed,
        camera_phase=rng.uniform(0, 2 * math.pi, 5),
        camera_turn=rng.uniform(0.03, 0.16, 2) * (1.0, 0.5),
        camera_pitch=np.array(rng.uniform(-0.16, 0.02)),
        camera_spin=np.array(rng.normal() * 0.004 * options.speed),
    )
    return Scene({key: np.asarray(value) for key, value in values.items()}, options, device)


def _draw_object(rng: np.random.Generator, style: str) -> tuple[int, Sequence[float], Sequence[float]]:
    """Kind, half sizes and centre of a sphere or box."""
    kind = int(rng.integers(2))
    size = rng.uniform(0.25, 1.1, 3) if kind == _BOX else np.full(3, rng.uniform(0.3, 1.0))
    depth = rng.uniform(1.0, 14.0)
    side = rng.uniform(-0.75, 0.75) * (depth + 4)
    height = size[1] if style != "swarm" else rng.uniform(0.5, 1.0 + 0.35 * depth)
    return kind, size, (side, max(height, size[1]), depth)


def _draw_pole(rng: np.random.Generator) -> tuple[int, Sequence[float], Sequence[float]]:
    half = rng.uniform(1.0, 2.5)
    width = rng.uniform(0.015, 0.06)
    depth = rng.uniform(0.0, 9.0)
    return _BOX, (width, half, width), (rng.uniform(-0.6, 0.6) * (depth + 4), half, depth)


def _walls(rng: np.random.Generator) -> list[tuple[int, Sequence[float], Sequence[float]]]:
    """Two side walls, one at the end, and a ceiling beam."""
    width, length = rng.uniform(5.0, 8.0), rng.uniform(14.0, 20.0)
    return [
        (_BOX, (0.2, 3.0, length), (-width, 3.0, 0.0)),
        (_BOX, (0.2, 3.0, length), (width, 3.0, 0.0)),
        (_BOX, (width, 3.0, 0.2), (0.0, 3.0, length)),
        (_BOX, (width, 0.25, 0.4), (0.0, 4.5, rng.uniform(3.0, 9.0))),
    ]


def _rotation(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotations P×3×3 by angles about axes of length 1 (Rodrigues)."""
    x, y, z = axis.unbind(dim=1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    identity = torch.eye(3, dtype=axis.dtype, device=axis.device)
    return identity + sine * cross + (1 - cosine) * cross @ cross


def _still(values: Tensor) -> Tensor:
    """Poses of sky and ground, which rest in the world's axes."""
    shape = (2, *values.shape[1:])
    return torch.eye(3, device=values.device).expand(shape) if values.dim() == 3 else values.new_zeros(shape)


def _to_own(vectors: Tensor, rotation: Tensor) -> Tensor:
    return (rotation.transpose(1, 2) @ vectors[..., None])[..., 0]


def _from_own(vectors: Tensor, rotation: Tensor) -> Tensor:
    return (rotation @ vectors[..., None])[..., 0]


def _meet_spheres(offset: Tensor, heading: Tensor, size: Tensor) -> Tensor:
    """Distances K×N along rays (K×3×1 or K×3×N, and K×3×N) to spheres of radius ``size[:, 0]`` about zero."""
    middle = -(offset * heading).sum(dim=1)
    # The distance of the ray from the centre, without the cancellation of b² - c.
    aside = offset + middle[:, None] * heading
    half = (size[:, 0] ** 2 - aside.square().sum(dim=1)).clamp(min=0).sqrt()
    distance = torch.where(middle - half > 1e-4, middle - half, middle + half)
    return torch.where((half > 0) & (distance > 1e-4), distance, _FAR)


def _meet_boxes(offset: Tensor, heading: Tensor, size: Tensor) -> Tensor:
    """Distances K×N along rays, as above, to boxes of half sizes about zero, by their slabs."""
    inverse = 1 / torch.where(heading.abs() < 1e-8, 1e-8, heading)
    middle, reach = -offset * inverse, size * inverse.abs()
    near, far = (middle - reach).unbind(dim=1), (middle + reach).unbind(dim=1)
    enter = torch.maximum(torch.maximum(near[0], near[1]), near[2])
    leave = torch.minimum(torch.minimum(far[0], far[1]), far[2])
    distance = torch.where(enter > 1e-4, enter, leave)
    return torch.where((enter < leave) & (distance > 1e-4), distance, _FAR)
