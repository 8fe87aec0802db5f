"""Shoulders in a shirt below a head, so that its neck does not end in the air."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ffplug_face.models import HeadModel
from ffplug_face.models.head import rotation_matrices
from ffplug_face.rendering.geometry import Surface
from ffplug_face.rendering.skin import SolidNoise

_AROUND = 48
_SHOULDERS = (0.21, 0.11)  # half the width and depth, metres
_BOTTOM = -0.45  # metres below the neck's root
_RINGS = 14  # of the shirt below its collar

_CLOTH = np.array(
    [[232, 230, 224], [36, 38, 44], [44, 62, 96], [120, 34, 38], [88, 108, 84], [150, 152, 156], [190, 160, 120]]
)
"""sRGB of shirts."""


@dataclasses.dataclass(frozen=True, eq=False)
class Body:
    """A collar round the neck's lower end and a shirt over shoulders; all of it moves with the head's root.

    Attributes:
        points: V×3 at rest, metres.
        faces: F×3 (int64).
        root: 3, the joint that it turns about.
        collar: V, 1 on the collar and 0 on the shirt.
        cloth: 3, linear RGB.
        stripes: colour change by stripes, 0 for none.
        noise: of the cloth.
    """

    points: Tensor
    faces: Tensor
    root: Tensor
    collar: Tensor
    cloth: Tensor
    stripes: float
    noise: SolidNoise

    @classmethod
    def draw(cls, head: HeadModel, shape: Tensor, rng: np.random.Generator) -> Body | None:
        """Draw one that fits an identity (1×S) of a head; None where the head ends without a border to hide.

        It follows from the head, the identity and ``rng`` alone.
        """
        with torch.no_grad():
            points = head.rest(shape)[0].double()
            root = head.joints(shape)[0, 0].double()
        rings, collar = _rings(points.cpu().numpy(), _border(head), head.weights[:, 0].cpu().numpy(), rng)
        colour = _CLOTH[rng.integers(len(_CLOTH))] * (1 + rng.normal(0, 0.1, 3))
        stripes = float(rng.uniform(0.2, 0.6)) * (rng.random() < 0.35)
        noise = SolidNoise.draw(rng, 2, points.device)
        if rings is None:
            return None
        index = np.arange(rings.shape[0] * _AROUND).reshape(-1, _AROUND)
        left = np.roll(index, -1, axis=1)
        quads = np.stack([index[:-1], left[:-1], left[1:], index[1:]], -1).reshape(-1, 4)
        triangles = np.concatenate([quads[:, [0, 2, 1]], quads[:, [0, 3, 2]]])
        return cls(
            points=torch.as_tensor(rings.reshape(-1, 3)).to(points),
            faces=torch.as_tensor(triangles).to(head.faces),
            root=root,
            collar=torch.as_tensor(np.repeat(collar, _AROUND)).to(head.template),
            cloth=torch.as_tensor((colour.clip(8, 245) / 255) ** 2.2).to(head.template),
            stripes=stripes,
            noise=noise,
        )

    def posed(self, pose: Tensor, translation: Tensor) -> Tensor:
        """The vertices V×3 under a head's pose (15, radians) and translation (3, metres)."""
        turn = rotation_matrices(pose[:3].double())
        return ((self.points - self.root) @ turn.T + self.root + translation.double()).to(pose)

    def colours(self, surface: Surface) -> tuple[Tensor, Tensor]:
        """Linear RGB M×3 and gloss (M) of the pixels that show it."""
        carried = torch.cat((self.points.to(self.collar), self.collar[:, None]), 1)
        *place, collar = surface.interpolate(carried, self.faces).unbind(1)
        place = torch.stack(place, 1)
        folds, weave = self.noise(0, place * 22.0), self.noise(1, place * 260.0)
        shade = 1 + 0.12 * folds + 0.10 * weave - 0.12 * collar
        if self.stripes:
            bands = torch.tanh(6 * torch.sin(place[:, 1] * 210.0)) * (1 - collar)
            shade = shade * (1 - 0.5 * self.stripes * (1 + bands))
        return (self.cloth * shade[:, None]).clamp(0, 1), torch.full_like(collar, 0.15)


_borders: weakref.WeakKeyDictionary[HeadModel, np.ndarray] = weakref.WeakKeyDictionary()


def _border(head: HeadModel) -> np.ndarray:
    """The vertices on the neck's open end; found once per head."""
    if head not in _borders:
        ends = head.faces.cpu().numpy()
        edges = np.sort(np.concatenate([ends[:, [0, 1]], ends[:, [1, 2]], ends[:, [2, 0]]]), 1)
        keys, uses = np.unique(edges @ [len(head.template), 1], return_counts=True)
        open_ends = np.unique(np.stack(np.divmod(keys[uses == 1], len(head.template))))
        _borders[head] = open_ends[head.weights[open_ends, 0].cpu().numpy() > 0.5]
    return _borders[head]


def _rings(
    points: np.ndarray, border: np.ndarray, root_weight: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray | None, np.ndarray]:
    """Rings of vertices R×A×3 from inside the neck over the collar to the chest, and which are collar (R)."""
    border = points[border]
    loose, tilt, lift = rng.uniform(1.04, 1.12), rng.uniform(-0.05, 0.1), rng.uniform(0.002, 0.008)
    if len(border) < 8:
        return None, np.zeros(0)
    # The border lies near a plane that falls to the front.
    plane = np.linalg.lstsq(np.stack([np.ones(len(border)), border[:, 2]], 1), border[:, 1], rcond=None)[0]
    slope = plane[1] - tilt
    base = (border[:, 1] - slope * border[:, 2]).max() + lift
    centre = (border[:, [0, 2]].min(0) + border[:, [0, 2]].max(0)) / 2
    angle = 2 * np.pi * np.arange(_AROUND) / _AROUND
    out = np.stack([np.sin(angle), np.cos(angle)], 1)
    reach = _reach(points[root_weight > 0.2], centre, base, slope)
    # The border may flare; the collar's foot is outside of it.
    off = border[:, [0, 2]] - centre
    flare = (np.linalg.norm(off, axis=1) - reach(np.arctan2(off[:, 0], off[:, 1]))).max()
    reach = reach(angle)

    def ring(radius: np.ndarray, drop: float) -> np.ndarray:
        x, z = (centre + radius[:, None] * out).T
        return np.stack([x, base + slope * z - drop, z], 1)

    wide, foot = loose * reach, reach + max(0.012, flare + 0.004)
    rings = [ring(0.7 * reach, 0.0), ring(wide, -0.002), ring(wide + 0.003, 0.001), ring(np.maximum(wide, foot), 0.018)]
    start = rings[-1]
    end = np.stack([centre[0] + _SHOULDERS[0] * out[:, 0], 0 * angle, centre[1] - 0.01 + _SHOULDERS[1] * out[:, 1]], 1)
    end[:, 1] = start[:, 1].mean() - 0.16
    for step in np.linspace(0, 1, _RINGS)[1:]:
        across, down = np.sin(0.5 * np.pi * step), 1 - np.cos(0.5 * np.pi * step)
        ring_ = start + across * (end - start)
        ring_[:, 1] = start[:, 1] + (0.25 * across + 0.75 * down) * (end[:, 1] - start[:, 1])
        rings.append(ring_)
    floor = end.copy()
    floor[:, 1] = _BOTTOM
    rings.append(floor)
    return np.stack(rings), np.arange(len(rings)) < 4


def _reach(points: np.ndarray, centre: np.ndarray, base: float, slope: float) -> Callable[[np.ndarray], np.ndarray]:
    """How far a neck reaches from its middle in each direction (radians), near the collar, as a smooth curve."""
    near = points[np.abs(points[:, 1] - slope * points[:, 2] - base) < 0.015]
    off = near[:, [0, 2]] - centre
    radius, at = np.linalg.norm(off, axis=1), np.arctan2(off[:, 0], off[:, 1])

    def waves(turn: np.ndarray) -> np.ndarray:
        return np.stack([np.ones_like(turn), *(f(k * turn) for k in (1, 2, 3) for f in (np.cos, np.sin))], 1)

    # What lies inside of the outer surface would pull it in: those far below the first fit are left out of the second.
    fit = np.linalg.lstsq(waves(at), radius, rcond=None)[0]
    outer = radius > waves(at) @ fit - 0.004
    fit = np.linalg.lstsq(waves(at[outer]), radius[outer], rcond=None)[0]
    return lambda turn: waves(turn) @ fit
