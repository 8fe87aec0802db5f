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
        u, v = surface.interpolate(head.uv.float(), head.uv_faces).unbind(1)
        grid = torch.stack((2 * u - 1, 1 - 2 * v), 1)[None, None]
        sampled = grid_sample(self.picture.to(grid)[None], grid, padding_mode="border", align_corners=False)[0, :, 0].T
        return sampled.clamp(min=0) ** 2.2, torch.ones_like(u)


_TONES = np.array(
    [[247, 219, 202], [236, 196, 172], [224, 177, 146], [198, 144, 110], [161, 106, 75], [120, 74, 51], [82, 51, 38]]
)
"""sRGB of skin, from light to dark."""

_HAIR = np.array([[22, 18, 16], [48, 32, 24], [88, 58, 36], [150, 110, 66], [120, 112, 106], [96, 48, 28]])
_IRIS = np.array([[62, 38, 22], [96, 66, 36], [70, 104, 132], [84, 112, 82], [110, 118, 126]])


@dataclasses.dataclass(frozen=True, eq=False)
class SolidNoise:
    """Smooth periodic noise in space.

    Attributes:
        fields: K×(G+1)×(G+1)×(G+1) on a lattice, whose last planes repeat the first.
    """

    fields: Tensor

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int, device: torch.device | None = None) -> SolidNoise:
        """Draw ``count`` fields of standard deviation 1; they follow from ``rng`` alone."""
        fields = torch.tensor(rng.normal(0, 1, (1, count, 24, 24, 24)), dtype=torch.float32, device=device)
        return cls(torch.nn.functional.pad(fields, (0, 1, 0, 1, 0, 1), mode="circular")[0])

    def to(self, device: torch.device) -> SolidNoise:
        """The same on a device."""
        return SolidNoise(self.fields.to(device))

    def __call__(self, index: int, places: Tensor) -> Tensor:
        """A field (M) at M×3 places in cells of its lattice."""
        size = self.fields.shape[1] - 1
        grid = (places % size) * (2 / size) - 1
        field = self.fields[index][None, None]
        return grid_sample(field, grid[None, None, None], align_corners=True)[0, 0, 0, 0]


@dataclasses.dataclass(frozen=True, eq=False)
class ProceduralSkin:
    """Skin as a solid texture: its colour follows from where on the mean head a point lies, so it has no seams.

    Three octaves of noise, pores and freckles give every part a visible pattern; lips, brows, lids, stubble, eyes, the
    mouth's inside and hair are painted by region and place.

    Attributes:
        tone: 3, linear RGB of the skin.
        lips: 3, likewise.
        hair: 3, likewise.
        iris: 3, likewise.
        noise: three octaves', and the freckles'.
        freckles: strength, 0 for none.
        bald: whether the scalp shows.
        hairline: how far up the hair begins, in distances of the eyes.
        stubble: how dark the chin and cheeks are, 0..1.
    """

    tone: Tensor
    lips: Tensor
    hair: Tensor
    iris: Tensor
    noise: SolidNoise
    freckles: float
    bald: bool
    hairline: float = 0.0
    stubble: float = 0.0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> ProceduralSkin:
        """Draw one; it follows from ``rng`` alone."""
        place = rng.uniform(0, len(_TONES) - 1)
        low = int(place)
        tone = _TONES[low] + (place - low) * (_TONES[min(low + 1, len(_TONES) - 1)] - _TONES[low])
        tone = np.clip(tone + rng.normal(0, 4, 3), 20, 250)
        lips = np.clip(tone * [0.88, 0.66, 0.65] + rng.normal(0, 6, 3), 10, 250)
        colours = (tone, lips, _pick(rng, _HAIR), _pick(rng, _IRIS))
        linear = [torch.tensor((colour / 255) ** 2.2, dtype=torch.float32) for colour in colours]
        noise = SolidNoise.draw(rng, 4)
        return cls(
            *linear,
            noise,
            freckles=float(max(0.0, rng.normal(0.1, 0.3))),
            bald=bool(rng.random() < 0.15),
            hairline=float(rng.normal(0, 0.08)),
            stubble=float(max(0.0, rng.normal(0.0, 0.35))),
        )

    def on(self, device: torch.device) -> ProceduralSkin:
        """The same on a device."""
        moved = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return ProceduralSkin(**{k: v.to(device) if hasattr(v, "to") else v for k, v in moved.items()})

    def colours(self, head: HeadModel, surface: Surface) -> tuple[Tensor, Tensor]:  # noqa: D102 (see the protocol)
        skin = self if self.tone.device == head.template.device else self.on(head.template.device)
        return skin._colours(head, surface)

    def _colours(self, head: HeadModel, surface: Surface) -> tuple[Tensor, Tensor]:
        eyes, apart = _eyes(head)
        # Distances in units of the eyes', so that heads of any size get the same pattern.
        template = (head.template.float() - eyes.mean(0)) / apart
        # What changes slowly is found at the vertices.
        coarse = self.noise(0, template * 4.0)
        blush = torch.exp(-(((template[:, 0].abs() - 0.62) / 0.3) ** 2) - ((template[:, 1] + 0.65) / 0.3) ** 2)
        slow = (coarse, blush, self._hair_height(template, coarse), self._beard(template, coarse))
        carried = torch.cat((template, torch.stack(slow, 1), head.masks.float()), 1)
        values = surface.interpolate(carried, head.faces)
        relative, (coarse, blush, height, beard) = values[:, :3].contiguous(), values[:, 3:7].unbind(1)
        masks = dict(zip(REGIONS, values[:, 7:].unbind(1), strict=True))
        middle, fine, pores, spots = (
            self.noise(index, relative * scale) for index, scale in ((1, 14.0), (2, 45.0), (2, 90.0), (3, 28.0))
        )
        variation = 1 + 0.10 * coarse + 0.06 * middle + 0.05 * fine
        variation = variation * (1 - self.freckles * (spots - 0.9).clamp(0, 0.8))
        variation = variation * (1 - 0.2 * (pores - 0.8).clamp(0, 1))
        red = blush + 0.5 * torch.exp(-((relative[:, 0] / 0.3) ** 2) - ((relative[:, 1] + 0.75) / 0.25) ** 2)
        redness = relative.new_tensor([0.0, 0.12, 0.10])
        colour = self.tone * variation[:, None] * (1 - (red + 0.25 * middle)[:, None] * redness)
        gloss = 1 + 0.25 * fine
        stubble = self.stubble * beard * (0.55 + 0.35 * pores).clamp(0, 1)
        layers = [
            (stubble, self.hair, 0.5),
            (masks["lips"], self.lips * (1 + 0.08 * fine + 0.10 * middle)[:, None], 1.8),
            (masks["brows"] * (0.7 + 0.3 * fine).clamp(0, 1), self.hair * (1 + 0.2 * fine)[:, None], 0.3),
            ((height / 0.1).clamp(0, 1), self.hair * (1 + 0.35 * fine + 0.25 * middle)[:, None], 0.6),
            (masks["mouth"], relative.new_tensor([0.16, 0.03, 0.03]) * (1 + 0.2 * middle)[:, None], 1.0),
        ]
        for alpha, paint, shine in layers:
            colour = colour + alpha[:, None] * (paint - colour)
            gloss = gloss + alpha * (shine - gloss)
        ball = (masks["eyes"] > 0).nonzero()[:, 0]
        alpha = masks["eyes"][ball]
        paint = self._eyeballs(relative[ball], (eyes - eyes.mean(0)) / apart, middle[ball])
        mixed = colour[ball] + alpha[:, None] * (paint - colour[ball])
        colour, gloss = colour.index_copy(0, ball, mixed), gloss.index_copy(0, ball, 1 + 4 * alpha)
        return colour.clamp(0, 1), gloss.clamp(min=0)

    def _hair_height(self, template: Tensor, coarse: Tensor) -> Tensor:
        """How far inside of the hair a place is, in distances of the eyes."""
        if self.bald:
            return torch.full_like(coarse, -1.0)
        return template[:, 1] - 0.75 * template[:, 2] - 1.05 - self.hairline + 0.05 * coarse

    def _beard(self, template: Tensor, coarse: Tensor) -> Tensor:
        """Where stubble grows, 0..1: on chin, lip and jaw."""
        x, y, z = template.unbind(1)
        low = ((-0.80 - 0.25 * x.abs() - y + 0.05 * coarse) / 0.2).clamp(0, 1)
        under = ((y + 2.1 - 0.5 * z) / 0.3).clamp(0, 1)
        return low * under * ((z + 0.7) / 0.2).clamp(0, 1)

    def _eyeballs(self, place: Tensor, eyes: Tensor, middle: Tensor) -> Tensor:
        """White, iris and pupil by the angle from the eye's axis."""
        own = torch.where(place[:, :1] < 0, eyes[0], eyes[1])
        ray = torch.nn.functional.normalize(place - own, dim=1)
        angle = torch.acos(ray[:, 2].clamp(-1, 1))
        white = place.new_tensor([0.62, 0.56, 0.53]) * (1 + 0.05 * middle)[:, None]
        # Redder where it goes under the lids.
        white = white * (1 - (angle[:, None] - 0.5).clamp(0, 1) * place.new_tensor([0.15, 0.45, 0.45]))
        iris = ((0.46 - angle) / 0.04).clamp(0, 1)[:, None]
        rim = 1 - 0.6 * ((angle - 0.36) / 0.1).clamp(0, 1)[:, None]
        pupil = ((0.19 - angle) / 0.03).clamp(0, 1)[:, None]
        streaks = 1 + 0.4 * torch.sin(24 * torch.atan2(ray[:, 1], ray[:, 0]))[:, None]
        colour = white + iris * (self.iris * streaks * rim - white)
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
