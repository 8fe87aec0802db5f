"""What colours a head: pictures in its texture coordinates, or procedural skin."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ffplug.datasets import read_image
from ffplug.errors import DataError
from ffplug_face.models import HeadModel
from ffplug_face.models.head import REGIONS
from ffplug_face.rendering.geometry import Surface

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


class Skin(Protocol):
    """A colour for every point of a head's surface, held to the surface."""

    def colours(self, head: HeadModel, surface: Surface) -> tuple[Tensor, Tensor]:
        """Linear RGB M×3 in 0..1 and gloss (M) of the M pixels that show the head, in reading order."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class UVSkin:
    """A picture in the head's texture coordinates.

    Attributes:
        picture: 3×H×W in 0..1, sRGB; its lower left corner is (0, 0).
        source: its file, for errors.
    """

    picture: Tensor
    source: str = "the texture"

    def colours(self, head: HeadModel, surface: Surface) -> tuple[Tensor, Tensor]:  # noqa: D102 (see the protocol)
        if head.uv is None:
            raise DataError(f"{head.source} has no texture coordinates for {self.source}: give it `texture`")
        weights = surface.barycentrics[surface.mask].float()
        corners = head.uv.float()[head.uv_faces[surface.triangle[surface.mask].long()]]
        u, v = (weights[..., None] * corners).sum(1).unbind(1)
        grid = torch.stack((2 * u - 1, 1 - 2 * v), 1)[None, None]
        sampled = grid_sample(self.picture[None], grid, padding_mode="border", align_corners=False)[0, :, 0].T
        return sampled.clamp(min=0) ** 2.2, torch.ones(len(sampled))


_TONES = np.array(
    [[247, 219, 202], [236, 196, 172], [224, 177, 146], [198, 144, 110], [161, 106, 75], [120, 74, 51], [82, 51, 38]]
)
"""sRGB of skin, from light to dark."""

_HAIR = np.array([[22, 18, 16], [48, 32, 24], [88, 58, 36], [150, 110, 66], [120, 112, 106], [96, 48, 28]])
_IRIS = np.array([[62, 38, 22], [96, 66, 36], [70, 104, 132], [84, 112, 82], [110, 118, 126]])


@dataclasses.dataclass(frozen=True, eq=False)
class ProceduralSkin:
    """Skin as a solid texture: its colour follows from where on the mean head a point lies, so it has no seams.

    Three octaves of noise, pores and freckles give every part a visible pattern; lips, brows, eyes, the mouth's inside
    and hair are painted by region and place.

    Attributes:
        tone: 3, linear RGB of the skin.
        lips: 3, likewise.
        hair: 3, likewise.
        iris: 3, likewise.
        noise: 4×G×G×G, periodic: three octaves' and the freckles'.
        freckles: strength, 0 for none.
        bald: whether the scalp shows.
    """

    tone: Tensor
    lips: Tensor
    hair: Tensor
    iris: Tensor
    noise: Tensor
    freckles: float
    bald: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> ProceduralSkin:
        """Draw one; it follows from ``rng`` alone."""
        place = rng.uniform(0, len(_TONES) - 1)
        low = int(place)
        tone = _TONES[low] + (place - low) * (_TONES[min(low + 1, len(_TONES) - 1)] - _TONES[low])
        tone = np.clip(tone + rng.normal(0, 4, 3), 20, 250)
        lips = np.clip(tone * [0.86, 0.60, 0.60] + rng.normal(0, 6, 3), 10, 250)
        colours = (tone, lips, _pick(rng, _HAIR), _pick(rng, _IRIS))
        linear = [torch.tensor((colour / 255) ** 2.2, dtype=torch.float32) for colour in colours]
        noise = torch.tensor(rng.normal(0, 1, (4, 24, 24, 24)), dtype=torch.float32)
        return cls(*linear, noise, float(max(0.0, rng.normal(0.1, 0.3))), bool(rng.random() < 0.15))

    def colours(self, head: HeadModel, surface: Surface) -> tuple[Tensor, Tensor]:  # noqa: D102 (see the protocol)
        carried = torch.cat((head.template, head.masks), 1).float()
        values = surface.interpolate(carried, head.faces)
        place, masks = values[:, :3], dict(zip(REGIONS, values[:, 3:].unbind(1), strict=True))
        eyes, apart = _eyes(head)
        # Distances in units of the eyes', so that heads of any size get the same pattern.
        relative = (place - eyes.mean(0)) / apart
        coarse, middle, fine = (self._noise(index, relative * scale) for index, scale in enumerate((4.0, 14.0, 45.0)))
        spots = self._noise(3, relative * 28.0)
        variation = 0.10 * coarse + 0.07 * middle + 0.06 * fine
        colour = self.tone * (1 + variation)[:, None]
        colour = colour * (1 - self.freckles * (spots - 0.9).clamp(0, 0.8))[:, None]
        pores = (self._noise(2, relative * 90.0) - 1.0).clamp(0, 1)
        colour = colour * (1 - 0.25 * pores)[:, None]
        blush = torch.exp(-(((relative[:, 0].abs() - 0.62) / 0.3) ** 2) - ((relative[:, 1] + 0.65) / 0.3) ** 2)
        colour = colour * (1 - blush[:, None] * torch.tensor([0.0, 0.10, 0.08]))
        gloss = torch.ones(len(colour))
        layers = [
            (masks["lips"], self.lips * (1 + 0.10 * fine + 0.12 * middle)[:, None], 1.6),
            (masks["brows"] * (0.75 + 0.2 * fine).clamp(0, 1), self.hair * (1 + 0.2 * fine)[:, None], 0.3),
            (self._hair(relative, coarse), self.hair * (1 + 0.35 * fine + 0.2 * middle)[:, None], 0.5),
            (masks["mouth"], torch.tensor([0.16, 0.03, 0.03]) * (1 + 0.2 * middle)[:, None], 1.0),
            (masks["eyes"], self._eyeballs(place, eyes, apart, middle), 3.0),
        ]
        for alpha, paint, shine in layers:
            colour = colour + alpha[:, None] * (paint - colour)
            gloss = gloss + alpha * (shine - gloss)
        return colour.clamp(0, 1), gloss

    def _noise(self, index: int, places: Tensor) -> Tensor:
        """Periodic smooth noise at M×3 places in cells of its lattice."""
        size = self.noise.shape[1]
        field = torch.nn.functional.pad(self.noise[index][None, None], (0, 1, 0, 1, 0, 1), mode="circular")
        grid = (places % size) * (2 / size) - 1
        return grid_sample(field, grid[None, None, None], align_corners=True)[0, 0, 0, 0]

    def _hair(self, relative: Tensor, coarse: Tensor) -> Tensor:
        if self.bald:
            return torch.zeros(len(relative))
        height = relative[:, 1] - 0.75 * relative[:, 2] - 1.05 + 0.05 * coarse
        return (height / 0.08).clamp(0, 1)

    def _eyeballs(self, place: Tensor, eyes: Tensor, apart: Tensor, middle: Tensor) -> Tensor:
        """White, iris and pupil by the angle from the eye's axis."""
        own = torch.where((place[:, :1] < eyes.mean(0)[0]), eyes[0], eyes[1])
        ray = torch.nn.functional.normalize(place - own, dim=1)
        angle = torch.acos(ray[:, 2].clamp(-1, 1))
        white = torch.tensor([0.80, 0.76, 0.74]) * (1 + 0.04 * middle)[:, None]
        iris = ((0.46 - angle) / 0.04).clamp(0, 1)[:, None]
        pupil = ((0.19 - angle) / 0.03).clamp(0, 1)[:, None]
        streaks = 1 + 0.4 * torch.sin(24 * torch.atan2(ray[:, 1], ray[:, 0]))[:, None]
        colour = white + iris * (self.iris * streaks - white)
        return colour * (1 - 0.95 * pupil)


def _pick(rng: np.random.Generator, colours: np.ndarray) -> np.ndarray:
    return np.clip(colours[rng.integers(len(colours))] * (1 + rng.normal(0, 0.08, 3)), 4, 250)


def _eyes(head: HeadModel) -> tuple[Tensor, Tensor]:
    """The eyes' joints of the mean head (2×3, right and left) and their distance."""
    joints = head.joints()[0].float()
    eyes = joints[[head.joint_names.index("right_eye"), head.joint_names.index("left_eye")]]
    return eyes, (eyes[0] - eyes[1]).norm()


class SkinSource:
    """Draws skins.

    Args:
        kind: ``procedural``, or a folder with pictures in the head's texture coordinates.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """

    def __init__(self, kind: str | os.PathLike = "procedural") -> None:
        self.pictures: list[Path] = []
        if str(kind) == "procedural":
            return
        folder = Path(kind)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; expected 'procedural' or a folder of textures")
        self.pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        if not self.pictures:
            raise DataError(f"{folder}: no picture in it to take a texture from ({', '.join(_SUFFIXES)})")

    def draw(self, rng: np.random.Generator) -> Skin:
        """Draw one; it follows from ``rng`` and the folder's content."""
        if not self.pictures:
            return ProceduralSkin.draw(rng)
        path = self.pictures[rng.integers(len(self.pictures))]
        picture = torch.from_numpy(read_image(path)).permute(2, 0, 1).float() / 255
        return UVSkin(picture, str(path))
