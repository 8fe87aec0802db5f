"""A perspective camera."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera: X = R·v + t, u = f·X/Z + (W-1)/2, v = f·Y/Z + (H-1)/2; integers are pixels' centres.

    Attributes:
        height: of the picture, pixels.
        width: likewise.
        focal: focal length in pixels.
        translation: t, metres, in the camera's axes (x right, y down, z away from it).
        rotation: R, 3×3 rows; by default it looks along the world's -z with the world's y up, at a face from the front.
    """

    height: int
    width: int
    focal: float
    translation: tuple[float, float, float]
    rotation: tuple[tuple[float, float, float], ...] = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))

    @classmethod
    def facing(cls, target: Sequence[float], distance: float, field_of_view: float, height: int, width: int) -> Camera:
        """A camera in front of a point.

        Args:
            target: world point (metres) that is shown in the middle of the picture.
            distance: metres from it.
            field_of_view: angle (degrees) over the picture's shorter side.
            height: of the picture, pixels.
            width: likewise.
        """
        if not 0 < field_of_view < 180 or distance <= 0:
            raise ValueError(
                f"Camera.facing: field of view {field_of_view}°, distance {distance} m: expected 0..180° and above 0"
            )
        focal = 0.5 * min(height, width) / math.tan(math.radians(field_of_view) / 2)
        x, y, z = map(float, target)
        return cls(height, width, focal, (-x, y, z + distance))

    def scaled(self, factor: int) -> Camera:
        """The same view with ``factor`` times as many rows and columns; each pixel becomes ``factor``² of them."""
        return dataclasses.replace(
            self, height=self.height * factor, width=self.width * factor, focal=self.focal * factor
        )

    def to_camera(self, points: Tensor) -> Tensor:
        """World points ...×3 in the camera's axes."""
        rotation = torch.tensor(self.rotation, dtype=points.dtype, device=points.device)
        return points @ rotation.T + torch.tensor(self.translation, dtype=points.dtype, device=points.device)

    def project(self, points: Tensor) -> Tensor:
        """World points ...×3 -> ...×3: x and y in pixels, depth z in metres."""
        x, y, z = self.to_camera(points).unbind(-1)
        return torch.stack(
            (self.focal * x / z + (self.width - 1) / 2, self.focal * y / z + (self.height - 1) / 2, z), dim=-1
        )

    @property
    def position(self) -> Tensor:
        """Where the camera stands in the world (3, float64)."""
        rotation = torch.tensor(self.rotation, dtype=torch.float64)
        return -rotation.T @ torch.tensor(self.translation, dtype=torch.float64)
