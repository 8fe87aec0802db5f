"""The final pass: motion blur along the flow, a gradient of fog, and noise."""

from __future__ import annotations

import cv2
import numpy as np

from ffplug.datasets.procedural.options import SceneOptions

FINAL_STREAM = 1
"""Appended to a scene's seed for the draws of the final pass, so that both passes show the same scene."""


def motion_blur(image: np.ndarray, flow: np.ndarray, shutter: float, taps: int = 9) -> np.ndarray:
    """Average a picture along its flow.

    Args:
        image: H×W×3 float32.
        flow: H×W×2 float32, the motion of each pixel over one frame, in pixels.
        shutter: share of the frame's time that the shutter is open.
        taps: number of samples along the path.
    """
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    total = np.zeros_like(image)
    for share in np.linspace(-0.5, 0.5, taps, dtype=np.float32) * shutter:
        map_x, map_y = x + share * flow[..., 0], y + share * flow[..., 1]
        total += cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return total / taps


def add_fog(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Blend towards a pale colour, denser along one random direction across the frame.

    Args:
        image: H×W×3 float32.
        strength: greatest opacity, 0..1.
        rng: draws direction, colour and opacity.
    """
    height, width = image.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    direction = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + 0.5 * (np.cos(direction) * x + np.sin(direction) * y), 0, 1)
    opacity = (strength * rng.uniform(0.3, 1.0) * ramp**1.5).astype(np.float32)[..., None]
    colour = (rng.uniform(150, 225) + rng.normal(0, 12, 3)).astype(np.float32)
    return image * (1 - opacity) + colour * opacity


def final_pass(
    image: np.ndarray,
    flow: np.ndarray,
    options: SceneOptions,
    scene_rng: np.random.Generator,
    frame_rng: np.random.Generator,
) -> np.ndarray:
    """Return the final pass of a clean picture.

    Args:
        image: H×W×3 uint8 RGB.
        flow: H×W×2 float32, the motion over one frame about the picture's time, in pixels.
        options: shutter, fog and noise.
        scene_rng: draws what stays the same in all frames of a scene.
        frame_rng: draws the noise.
    """
    blurred = motion_blur(image.astype(np.float32), flow, options.shutter)
    foggy = add_fog(blurred, options.fog, scene_rng)
    noise = frame_rng.normal(0, options.noise * scene_rng.uniform(0.3, 1.0), image.shape)
    return np.rint(np.clip(foggy + noise, 0, 255)).astype(np.uint8)
