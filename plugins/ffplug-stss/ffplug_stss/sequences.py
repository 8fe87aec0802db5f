"""Frames of a procedural scene as STSS takes them: what is warped from where, with the truth beside."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ffplug.files import atomic_path
from ffplug.ops import backward_warp
from ffplug_stss.channels import HISTORY
from ffplug_stss.rendering import Renderer
from ffplug_stss.warping import OUTSIDE, from_engine, inside, occlusion_motion, same_surface, warp

SHADED, EXTRAPOLATED = "SF", "EF"
"""Frames of even times are shaded, those between are not."""


class Sequence:
    """A scene over time as records of the released data's form.

    Args:
        renderer: of the scene.
    """

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        # A frame and the two shaded ones before it share most of what they warp.
        self.buffers = functools.lru_cache(maxsize=8)(renderer.buffers)
        self.shaded = functools.lru_cache(maxsize=4)(renderer.shaded)

    def hole(self, time: int, earlier: int) -> tuple[Tensor, Tensor]:
        """Motion from a frame to an earlier one, 1×2×H×W, and where there is nothing to take, 1×1×H×W bool.

        A pixel is a hole where its earlier place is outside, on another object with any of its four neighbours, or was
        hidden.
        """
        now, then = self.buffers(time), self.buffers(earlier)
        motion = self.renderer.motion(now, time, earlier)
        valid = inside(motion) & same_surface(now.label, then.label, motion)
        return motion, ~(valid & self.renderer.visible(now, time, earlier))

    def record(self, time: int) -> np.ndarray:
        """The inputs of a frame, H×W×33 float16; see :mod:`ffplug_stss.datasets.records`."""
        now = self.buffers(time)
        newest = time - time % 2
        warped, plain = [], []
        for earlier in range(newest, newest - 2 * HISTORY, -2):
            image = self.shaded(earlier)
            if earlier == time:
                whole, hole = image, torch.zeros_like(now.label, dtype=torch.bool)
            else:
                motion, hole = self.hole(time, earlier)
                whole = self._sample(image, motion)
            warped.append(torch.where(hole, OUTSIDE, whole))
            plain.append(whole)
        color, motion = plain[0], self.renderer.motion(now, time, time - 1)
        if newest != time:
            missing = (warped[0] == OUTSIDE).all(dim=1, keepdim=True)
            fetched = self._sample(self.shaded(newest), occlusion_motion(motion, now.depth))
            color = torch.where(missing, fetched, color)
        names = ("base_color", "metallic", "roughness", "depth", "normal")
        return encode(warped, color, plain, motion, **{name: getattr(now, name) for name in names})

    def _sample(self, image: Tensor, motion: Tensor) -> Tensor:
        """An earlier frame at the place of the present one."""
        repeated = self.renderer.scene.options.outside == "repeat"
        return backward_warp(image, motion, "border") if repeated else warp(image, motion)

    def target(self, time: int) -> np.ndarray:
        """The true frame, 2H×2W×3 float16, BGR."""
        return to_array(self.renderer.reference(time).flip(1))

    @staticmethod
    def kind(time: int) -> str:
        """Whether a frame is shaded or extrapolated."""
        return EXTRAPOLATED if time % 2 else SHADED


def encode(
    warped: list[Tensor],
    color: Tensor,
    plain: list[Tensor],
    motion: Tensor,
    *,
    base_color: Tensor,
    metallic: Tensor,
    roughness: Tensor,
    depth: Tensor,
    normal: Tensor,
) -> np.ndarray:
    """Put what a frame needs into the released order, three channels of a vector reversed; 1×C×H×W each.

    Args:
        warped: earlier frames, newest first, with -1 in holes.
        color: the newest with its holes filled.
        plain: as ``warped``, with -1 only outside of the frame.
        motion: to the frame before, in pixels, x right, y down.
        base_color: RGB.
        metallic: one channel; likewise roughness and depth.
        roughness: 0..1.
        depth: 0..1.
        normal: in the world.

    Returns:
        H×W×33 float16.
    """
    engine = from_engine(motion).flip(1)
    parts = [*(vector.flip(1) for vector in (*warped, color, *plain, base_color))]
    parts += [metallic, roughness, depth, normal.flip(1)]
    return to_array(torch.cat([*parts, torch.zeros_like(engine[:, :1]), engine], dim=1))


def to_array(image: Tensor) -> np.ndarray:
    """1×C×H×W to H×W×C float16."""
    return image[0].permute(1, 2, 0).to(torch.float16).cpu().contiguous().numpy()


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array as ``.npy``; it appears when it is whole.

    Raises:
        DataError: there is no room for it.
    """
    with atomic_path(path, sync=False) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)
