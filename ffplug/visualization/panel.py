"""Side-by-side panels with captions."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ffplug.evaluation.flow_statistics import epe_map, flow_array
from ffplug.visualization.colour import colour_wheel_legend, draw_arrows, error_map, flow_norm, flow_to_image

_INK, _PAPER, _WARNING = 30, 255, (190, 30, 20)
_GAP = 8


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # MMEngine depends on it, and its font knows more letters than Pillow's own

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def text_image(text: str, size: int = 14, colour: int | tuple[int, int, int] = _INK) -> np.ndarray:
    """Return one line of text as a picture h×w×4 uint8 RGBA that is as wide as the text.

    Args:
        text: one line.
        size: height of the font in pixels.
        colour: grey value or RGB.
    """
    font = _font(max(6, size))
    ascent, descent = font.getmetrics()
    picture = Image.new("RGBA", (max(1, round(font.getlength(text))), ascent + descent), (0, 0, 0, 0))
    rgb = (colour,) * 3 if isinstance(colour, int) else colour
    ImageDraw.Draw(picture).text((0, 0), text, font=font, fill=(*rgb, 255))
    return np.asarray(picture)


def _write(
    canvas: np.ndarray, text: str, x: int, y: int, size: int, colour: int | tuple = _INK, width: int = 0
) -> None:
    """Write a line on the canvas in place; cut it to ``width`` pixels with an ellipsis."""
    font = _font(max(6, size))
    if width and font.getlength(text) > width:
        while text and font.getlength(text + "…") > width:
            text = text[:-1]
        text += "…"
    label = text_image(text, size, colour)
    height, length = min(label.shape[0], canvas.shape[0] - y), min(label.shape[1], canvas.shape[1] - x)
    if height <= 0 or length <= 0:
        return
    alpha = label[:height, :length, 3:] / 255.0
    area = canvas[y : y + height, x : x + length]
    area[:] = np.round(alpha * label[:height, :length, :3] + (1 - alpha) * area)


def image_array(image: Any) -> np.ndarray:
    """Return a frame as H×W×3 uint8 RGB; a tensor comes as 3×H×W with values 0..255."""
    if hasattr(image, "detach"):
        image = image.detach().float().cpu().numpy().transpose(1, 2, 0)
    return np.clip(np.asarray(image), 0, 255).astype(np.uint8)


def panel(
    image1: Any,
    image2: Any | None = None,
    gt: Any | None = None,
    pred: Any | None = None,
    valid: Any | None = None,
    *,
    title: str = "",
    source: str = "",
    tile_width: int = 440,
    columns: int = 3,
    arrows: bool = False,
    further: Mapping[str, tuple[Any | None, Any | None]] | None = None,
) -> np.ndarray:
    """Lay out frame 1, frame 2, true flow, prediction, further flows, error and the legend, each with a caption.

    All flows are coloured with one scale, that of the true flow where there is one. What is not given is left out.

    Args:
        image1: frame 1, array H×W×3 uint8 RGB or tensor 3×H×W in 0..255; likewise ``image2``.
        image2: frame 2.
        gt: true flow, array H×W×2 or tensor 2×H×W, in pixels.
        pred: predicted flow in the same shape.
        valid: H×W mask of the true flow.
        title: first line above the tiles.
        source: name of the data set as it must be shown; ``'procedural, ...'`` is written in red.
        tile_width: width of a tile in pixels.
        columns: tiles per row.
        arrows: draw the flow (prediction, or else the truth) as arrows on frame 1.
        further: other flows by name, each the true one and the predicted one (or None), as ``gt``.

    Returns:
        H×W×3 uint8 RGB.
    """
    first = image_array(image1)
    gt = None if gt is None else flow_array(gt)
    pred = None if pred is None else flow_array(pred)
    mask = None
    if gt is not None:
        mask = np.isfinite(gt).all(axis=2)
        if valid is not None:
            mask &= (valid.detach().cpu().numpy() if hasattr(valid, "detach") else np.asarray(valid)) > 0
    scale = flow_norm(gt, mask) if gt is not None and mask.any() else (flow_norm(pred) if pred is not None else 0.0)

    shown = pred if pred is not None else gt
    tiles = [("frame 1", _with_arrows(first, shown, tile_width) if arrows and shown is not None else first)]
    if image2 is not None:
        tiles.append(("frame 2", image_array(image2)))
    if gt is not None:
        tiles.append((f"true flow, up to {scale:.1f} px", flow_to_image(gt, scale, mask)))
    figures = []
    if pred is not None:
        tiles.append(
            (
                "predicted flow" + (", same scale" if gt is not None else f", up to {scale:.1f} px"),
                flow_to_image(pred, scale),
            )
        )
    for name, flows in (further or {}).items():
        for kind, flow in zip(("true", "predicted"), flows, strict=True):
            if flow is not None:
                tiles.append((f"{kind} {name}, same scale", flow_to_image(flow, scale)))
    if gt is not None and pred is not None:
        error = np.where(mask, epe_map(pred, gt), np.nan)
        tiles.append(("end-point error", error))
        if mask.any():
            epe, zero = float(error[mask].mean()), float(np.hypot(*gt[mask].T.astype(np.float64)).mean())
            figures = [f"EPE {epe:.3f} px", f"zero flow {zero:.3f} px"]
            figures += [f"ratio {epe / zero:.3f}"] if zero > 0 else []
    cells = len(tiles) + (len(tiles) > 1)
    return _lay_out(
        tiles, figures, scale, title, source, tile_width, 2 if cells == 4 and columns == 3 else min(columns, cells)
    )


def _with_arrows(image: np.ndarray, flow: np.ndarray, width: int) -> np.ndarray:
    """Draw arrows on the frame in the size in which it will be shown, so that they stay legible."""
    scale = width / image.shape[1]
    size = (width, max(1, round(image.shape[0] * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    nearest = cv2.resize(flow.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    return draw_arrows(small, nearest, step=20, scale=scale)


def _lay_out(
    tiles: Sequence[tuple[str, np.ndarray]],
    figures: Sequence[str],
    scale: float,
    title: str,
    source: str,
    tile_width: int,
    columns: int,
) -> np.ndarray:
    height, width = tiles[0][1].shape[:2]
    tile_height = max(48, round(tile_width * height / width))
    caption, bar = 24, 20
    with_legend = len(tiles) > 1
    rows = -(-(len(tiles) + with_legend) // columns)
    head = 30 * bool(title) + 24 * bool(source)
    cell_height = caption + tile_height + _GAP
    has_error = any(tile.ndim == 2 for _, tile in tiles)
    canvas = np.full(
        (head + _GAP + rows * cell_height + (bar if has_error else 0), _GAP + columns * (tile_width + _GAP), 3),
        _PAPER,
        np.uint8,
    )
    line = canvas.shape[1] - 2 * _GAP
    if title:
        _write(canvas, title, _GAP, 6, 18, width=line)
    if source:
        red = source.startswith("procedural")
        _write(canvas, source, _GAP, 4 + 28 * bool(title), 14, _WARNING if red else _INK, width=line)

    for i, (name, tile) in enumerate(tiles):
        y, x = head + _GAP + (i // columns) * cell_height, _GAP + (i % columns) * (tile_width + _GAP)
        _write(canvas, name, x, y + 2, 14, width=tile_width)
        shrink = tile.shape[1] > tile_width
        if tile.ndim == 2:
            level = np.percentile(tile[np.isfinite(tile)], 99) if np.isfinite(tile).any() else 1.0
            picture = error_map(_resize_error(tile, tile_width, tile_height), max(1.0, float(level)))
        else:
            way = cv2.INTER_AREA if shrink else cv2.INTER_NEAREST
            picture = cv2.resize(tile, (tile_width, tile_height), interpolation=way)
        canvas[y + caption : y + caption + picture.shape[0], x : x + tile_width] = picture[
            : canvas.shape[0] - y - caption
        ]
    if with_legend:
        i = len(tiles)
        y, x = head + _GAP + (i // columns) * cell_height + caption, _GAP + (i % columns) * (tile_width + _GAP)
        size = min(tile_height, 150, tile_width // 2)
        canvas[y : y + size, x : x + size] = colour_wheel_legend(size, _PAPER)
        notes = [f"rim = {scale:.1f} px", *figures]
        for j, note in enumerate(notes):
            _write(canvas, note, x + size + 14, y + 4 + 24 * j, 15, width=tile_width - size - 14)
    return canvas


def _resize_error(error: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize by nearest neighbour: averages would hide outliers and spread the pixels without ground truth."""
    return cv2.resize(error, (width, height), interpolation=cv2.INTER_NEAREST)
