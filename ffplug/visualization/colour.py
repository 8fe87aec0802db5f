"""Flow and errors as colours: the Middlebury wheel, arrows, and an error map with its scale."""

from __future__ import annotations

import functools
import math
from typing import Any

import cv2
import numpy as np

from ffplug.evaluation.flow_statistics import flow_array

# Numbers of hues from red to yellow, green, cyan, blue, magenta and back to red.
_HUE_STEPS = (15, 6, 4, 11, 13, 6)
_HUE_ENDS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))


@functools.cache
def colour_wheel() -> np.ndarray:
    """Return the 55 hues of the Middlebury colour wheel, 55×3 float64 in 0..255 (Baker et al., IJCV 2011)."""
    ends = np.array(_HUE_ENDS, dtype=np.float64)
    parts = []
    for i, steps in enumerate(_HUE_STEPS):
        start, end = ends[i], ends[(i + 1) % len(ends)]
        rising = np.floor(255 * np.arange(steps) / steps)[:, None]
        parts.append(start + np.sign(end - start) * rising)
    wheel = np.concatenate(parts)
    wheel.setflags(write=False)
    return wheel


def flow_norm(flow: Any, valid: np.ndarray | None = None) -> float:
    """Return the largest finite speed of a flow in pixels (0 if there is none), to scale several pictures alike."""
    array = flow_array(flow).astype(np.float64)
    speed = np.hypot(array[..., 0], array[..., 1])
    chosen = np.isfinite(speed) if valid is None else np.isfinite(speed) & (valid > 0)
    return float(speed[chosen].max()) if chosen.any() else 0.0


def flow_to_image(flow: Any, max_norm: float | None = None, valid: np.ndarray | None = None) -> np.ndarray:
    """Colour a flow by the Middlebury wheel: hue is direction, saturation is speed.

    Args:
        flow: tensor 2×H×W or array H×W×2, in pixels.
        max_norm: speed of full saturation; default the largest speed. Faster pixels are darkened.
        valid: H×W mask; other pixels, and those that are not finite, are black.

    Returns:
        H×W×3 uint8 RGB; no motion is white.
    """
    array = flow_array(flow).astype(np.float64)
    finite = np.isfinite(array).all(axis=2)
    shown = finite if valid is None else finite & (np.asarray(valid) > 0)
    array = np.where(shown[..., None], array, 0.0)
    scale = flow_norm(array) if max_norm is None else max_norm
    # A float, for NumPy would round the sum to the float32 of its eps, and the fastest pixel might exceed it.
    u, v = (array[..., i] / (scale + float(np.finfo(np.float32).eps)) for i in range(2))
    speed = np.hypot(u, v)[..., None]

    wheel = colour_wheel() / 255.0
    position = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (len(wheel) - 1)
    below = np.floor(position).astype(np.int64)
    share = (position - below)[..., None]
    hue = (1 - share) * wheel[below] + share * wheel[(below + 1) % len(wheel)]
    colour = np.where(speed <= 1, 1 - speed * (1 - hue), 0.75 * hue)
    return np.where(shown[..., None], np.floor(255 * colour), 0).astype(np.uint8)


def colour_wheel_legend(size: int = 128, background: int = 255) -> np.ndarray:
    """Return the disc of all directions and speeds as a picture: what colour means what motion.

    Args:
        size: height and width in pixels.
        background: grey value around the disc.

    Returns:
        size×size×3 uint8 RGB.
    """
    axis = (np.arange(size) - (size - 1) / 2) / (size / 2)
    flow = np.stack(np.meshgrid(axis, axis), axis=-1)
    disc = flow_to_image(flow, max_norm=1.0)
    disc[np.hypot(flow[..., 0], flow[..., 1]) > 1] = background
    return disc


def draw_arrows(
    image: np.ndarray,
    flow: Any,
    step: int = 16,
    scale: float = 1.0,
    colour: tuple[int, int, int] = (255, 230, 0),
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """Draw the flow as arrows on a picture.

    Args:
        image: H×W×3 uint8 RGB; stays as it is.
        flow: tensor 2×H×W or array H×W×2, in pixels.
        step: one arrow every so many pixels.
        scale: length of an arrow in pixels per pixel of motion.
        colour: RGB.
        valid: H×W mask; no arrow starts outside.

    Returns:
        A new H×W×3 uint8 RGB picture.
    """
    array, drawn = flow_array(flow), np.ascontiguousarray(image).copy()
    height, width = array.shape[:2]
    for y in range(min(step // 2, height - 1), height, step):
        for x in range(min(step // 2, width - 1), width, step):
            u, v = array[y, x].astype(np.float64) * scale
            if not (math.isfinite(u) and math.isfinite(v)) or (valid is not None and not valid[y, x]):
                continue
            length = math.hypot(u, v)
            end = (round(x + np.clip(u, -1e4, 1e4)), round(y + np.clip(v, -1e4, 1e4)))
            tip = min(0.4, 4 / length) if length else 0.0
            cv2.arrowedLine(drawn, (x, y), end, (0, 0, 0), 2, cv2.LINE_AA, tipLength=tip)
            cv2.arrowedLine(drawn, (x, y), end, colour, 1, cv2.LINE_AA, tipLength=tip)
    return drawn


def error_map(error: np.ndarray, max_error: float | None = None, bar: bool = True) -> np.ndarray:
    """Colour an end-point error map, dark for small to bright for large, with its scale below.

    Args:
        error: H×W in pixels (:func:`ffplug.evaluation.epe_map`); NaN (no ground truth) is grey.
        max_error: error of the brightest colour; default the 99th percentile, at least 1 px.
        bar: add the colour bar with its numbers below the picture.

    Returns:
        H×W×3 uint8 RGB, or (H + bar)×W×3 with the bar.
    """
    known = ~np.isnan(error)
    finite = error[np.isfinite(error)]
    top = max(1.0, float(np.percentile(finite, 99))) if max_error is None and finite.size else (max_error or 1.0)
    level = np.where(known, np.clip(np.where(known, error, 0) / top, 0, 1), 0)
    picture = _inferno(np.round(255 * level).astype(np.uint8))
    picture[~known] = 128
    if not bar:
        return picture
    from ffplug.visualization.panel import text_image

    width = picture.shape[1]
    height = max(12, min(22, picture.shape[0] // 12))
    ramp = _inferno(np.tile(np.linspace(0, 255, width).astype(np.uint8), (height, 1)))
    low, high = (
        text_image(text, size=height - 5, colour=colour) for text, colour in (("0", 255), (f"≥ {top:.3g} px", 0))
    )
    for label, left in ((low, 4), (high, width - high.shape[1] - 4)):
        if label.shape[1] + 8 <= width and label.shape[0] <= height:
            y = (height - label.shape[0]) // 2
            area = ramp[y : y + label.shape[0], left : left + label.shape[1]]
            alpha = label[..., 3:] / 255.0
            area[:] = np.round(alpha * label[..., :3] + (1 - alpha) * area)
    return np.concatenate([picture, ramp])


def _inferno(levels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.applyColorMap(np.ascontiguousarray(levels), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
