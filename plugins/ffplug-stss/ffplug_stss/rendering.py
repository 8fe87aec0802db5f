"""Frames, buffers and exact vectors of a procedural scene, in PyTorch on any device."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ffplug.errors import ConfigError
from ffplug_stss.channels import SCALE
from ffplug_stss.scenes import SKY, Camera, Scene

FIELD_OF_VIEW = math.radians(65)
"""From left to right."""

_RAYS = {"cpu": 1 << 14, "cuda": 1 << 20}
"""Rays that are followed at once: as many as the cache, or a GPU, holds with all objects."""
_NEAR = 1e-3
_MOST = 1e4


@dataclasses.dataclass(frozen=True)
class Buffers:
    """What an engine knows of a frame before it shades it; 1×C×H×W each, at the low resolution.

    Attributes:
        normal: world normal, -1..1; 0 for the sky.
        depth: along the view, as a share of the scene's far distance, 0..1; 1 for the sky.
        roughness: 0..1.
        metallic: 0..1.
        base_color: RGB 0..1.
        label: number of the object, int64.
        position: world position, or direction for the sky.
    """

    normal: Tensor
    depth: Tensor
    roughness: Tensor
    metallic: Tensor
    base_color: Tensor
    label: Tensor
    position: Tensor

    @property
    def feature(self) -> Tensor:
        """The buffers as the network takes them, 1×9×H×W."""
        return torch.cat([self.normal, self.depth, self.roughness, self.metallic, self.base_color], dim=1)


class Renderer:
    """Renders a scene at a low resolution, and its reference at twice that.

    The low resolution takes one ray in the centre of each pixel, so its edges, poles and textures are aliased; the
    reference averages ``samples``² rays a pixel in linear light. Both grids share their origin. Colours are encoded as
    sRGB.

    Args:
        scene: what to render.
        size: height and width of the low resolution.

    Raises:
        ConfigError: a side is less than 8 pixels.
    """

    def __init__(self, scene: Scene, size: tuple[int, int]) -> None:
        if len(size) != 2 or min(size) < 8:
            raise ConfigError(f"size={tuple(size)}: expected height and width of at least 8 pixels")
        self.scene = scene
        self.size = tuple(size)
        self._chunk = _RAYS.get(scene.device.type, _RAYS["cuda"])

    @torch.no_grad()
    def buffers(self, time: int) -> Buffers:
        """The buffers of a frame."""
        camera, poses = self.scene.camera(time), self.scene.poses(time)
        parts = []
        for direction in self._rays(camera, self.size).split(self._chunk):
            hits = self.scene.trace(poses, camera.position, direction)
            colour, roughness, metallic = self.scene.material(hits, self._footprint(hits.distance, 1))
            along = ((hits.position - camera.position) @ camera.axes[2] / self.scene.options.far).clamp(0, 1)
            depth = torch.where(hits.label == SKY, 1.0, along)
            parts.append((hits.normal, depth, roughness, metallic, colour, hits.label, hits.position))
        return Buffers(*(self._image(torch.cat(values)) for values in zip(*parts, strict=True)))

    @torch.no_grad()
    def shaded(self, time: int) -> Tensor:
        """A frame with aliasing, 1×3×H×W, sRGB 0..1."""
        return encode_srgb(self._shade(time, self.size, 1))

    @torch.no_grad()
    def reference(self, time: int) -> Tensor:
        """The true frame, 1×3×2H×2W, sRGB 0..1."""
        samples = self.scene.options.samples
        size = tuple(SCALE * samples * side for side in self.size)
        return encode_srgb(torch.nn.functional.avg_pool2d(self._shade(time, size, SCALE * samples), samples))

    @torch.no_grad()
    def motion(self, buffers: Buffers, time: int, earlier: int) -> Tensor:
        """Where what shows in a frame was in an earlier one, exactly: flow 1×2×H×W in pixels; the sky turns only.

        What was behind the camera is far outside.
        """
        camera, then = self.scene.camera(time), self.scene.camera(earlier)
        label, position = buffers.label.flatten(), buffers.position.flatten(2)[0].T
        before = self._carry(label, position, time, earlier)
        # The difference of two projections by the same arithmetic: what rests has motion 0 exactly.
        moved = self._project(before, label, then) - self._project(position, label, camera)
        return moved.T.reshape(1, 2, *self.size)

    @torch.no_grad()
    def visible(self, buffers: Buffers, time: int, earlier: int) -> Tensor:
        """Whether what shows in a frame was in plain sight of the earlier camera, inside of its picture or not.

        Returns:
            1×1×H×W bool.
        """
        poses, then = self.scene.poses(earlier), self.scene.camera(earlier)
        label, position = buffers.label.flatten(), buffers.position.flatten(2)[0].T
        before = self._carry(label, position, time, earlier)
        seen = []
        for name, place in zip(label.split(self._chunk), before.split(self._chunk), strict=True):
            ray = torch.where((name == SKY)[:, None], place, place - then.position)
            distance = ray.norm(dim=1)
            reach = torch.where(name == SKY, _MOST, distance * (1 - 2e-3))
            seen.append(~self.scene.blocked(poses, then.position, ray / distance[:, None].clamp(min=1e-6), reach))
        return torch.cat(seen).view(1, 1, *self.size)

    def _carry(self, label: Tensor, position: Tensor, time: int, earlier: int) -> Tensor:
        """World positions of the same points of the objects at an earlier time."""
        now, then = self.scene.poses(time), self.scene.poses(earlier)
        if not len(now.centre):
            return position
        place = (label - 2).clamp(min=0)
        turn = then.rotation @ now.rotation.transpose(1, 2)
        moved = (turn[place] @ (position - now.centre[place])[..., None])[..., 0] + then.centre[place]
        return torch.where((label > 1)[:, None], moved, position)

    def _project(self, position: Tensor, label: Tensor, camera: Camera) -> Tensor:
        """Column and row N×2 of world positions, or of directions for the sky."""
        height, width = self.size
        relative = torch.where((label == SKY)[:, None], position, position - camera.position)
        right, up, along = (relative @ camera.axes.T).unbind(dim=1)
        focal = _focal(width)
        behind = along < _NEAR
        along = along.clamp(min=_NEAR)
        x, y = focal * right / along + (width - 1) / 2, (height - 1) / 2 - focal * up / along
        return torch.where(behind[:, None], _MOST, torch.stack([x, y], dim=1).clamp(-_MOST, _MOST))

    def _rays(self, camera: Camera, size: tuple[int, int]) -> Tensor:
        """Directions N×3 of length 1 through the centres of the pixels, row after row."""
        height, width = size
        y = (height - 1) / 2 - torch.arange(height, device=self.scene.device, dtype=torch.float32)
        x = torch.arange(width, device=self.scene.device, dtype=torch.float32) - (width - 1) / 2
        plane = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=2) / _focal(width)
        ahead = torch.cat([plane, torch.ones_like(plane[..., :1])], dim=2).view(-1, 3)
        return torch.nn.functional.normalize(ahead @ camera.axes, dim=1)

    def _footprint(self, distance: Tensor, finer: int) -> Tensor:
        return distance / (_focal(self.size[1]) * finer)

    def _shade(self, time: int, size: tuple[int, int], finer: int) -> Tensor:
        """Linear colours 1×3×h×w, cut to 0..1 as a display does."""
        camera, poses = self.scene.camera(time), self.scene.poses(time)
        colours = []
        for direction in self._rays(camera, size).split(self._chunk):
            hits = self.scene.trace(poses, camera.position, direction)
            colours.append(self.scene.shade(hits, poses, direction, self._footprint(hits.distance, finer)).clamp(0, 1))
        return torch.cat(colours).T.reshape(1, 3, *size)

    def _image(self, values: Tensor) -> Tensor:
        """N or N×C -> 1×C×H×W."""
        return values.view(*self.size, -1).permute(2, 0, 1)[None].contiguous()


def _focal(width: int) -> float:
    return width / (2 * math.tan(FIELD_OF_VIEW / 2))


def encode_srgb(linear: Tensor) -> Tensor:
    """Encode linear light 0..1 as sRGB 0..1 (IEC 61966-2-1)."""
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-4) ** (1 / 2.4) - 0.055)


def decode_srgb(encoded: Tensor) -> Tensor:
    """Turn sRGB 0..1 into linear light 0..1, as :func:`encode_srgb` encodes it."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded.clamp(min=0) + 0.055) / 1.055) ** 2.4)
