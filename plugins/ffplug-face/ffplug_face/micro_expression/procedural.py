"""A procedural set of micro-expressions: drawn faces that move by known fields, in the manifest's form."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np

from ffplug.datasets.formats import write_bytes, write_flow, write_image
from ffplug.datasets.layouts import MARKER
from ffplug.errors import ConfigError, DataError
from ffplug_face.micro_expression.manifest import CLASSES, Clip, write_manifest

# Where a class moves the face: x, y of the centre and its spread as parts of the width, direction x, y.
MOVES = {
    "negative": (  # brows lowered and drawn together, lip corners depressed
        (0.32, 0.3, 0.09, 0.5, 0.9),
        (0.68, 0.3, 0.09, -0.5, 0.9),
        (0.37, 0.76, 0.07, -0.2, 0.8),
        (0.63, 0.76, 0.07, 0.2, 0.8),
    ),
    "positive": (  # lip corners pulled, cheeks raised
        (0.36, 0.75, 0.08, -0.7, -0.8),
        (0.64, 0.75, 0.08, 0.7, -0.8),
        (0.28, 0.55, 0.08, 0.0, -0.5),
        (0.72, 0.55, 0.08, 0.0, -0.5),
    ),
    "surprise": (  # brows raised, jaw dropped
        (0.32, 0.28, 0.11, 0.0, -1.0),
        (0.68, 0.28, 0.11, 0.0, -1.0),
        (0.5, 0.86, 0.12, 0.0, 0.9),
    ),
}


def write_example(
    folder: str | os.PathLike[str],
    subjects: int = 8,
    clips: int = 12,
    size: int = 96,
    seed: int = 0,
    noise: float = 2.0,
    amplitude: tuple[float, float] = (0.1, 0.6),
) -> list[Clip]:
    """Write a set: ``manifest.csv``, frames and, for each clip, the exact flow from onset to apex.

    The classes take turns. Each clip has an onset, an apex and an offset in nine frames, a strength and an asymmetry of
    its own, and a drift of the head as a similarity. The exact flow is ``flow/DATASET/SUBJECT/CLIP.flo``.

    Args:
        folder: to make; it must be empty or absent.
        subjects: people, each with a drawn face of its own.
        clips: of each person.
        size: side of the frames in pixels.
        seed: of everything.
        noise: deviation of the camera's noise in grey levels.
        amplitude: least and greatest movement in pixels of a face 128 pixels wide.

    Returns:
        The clips.

    Raises:
        ConfigError: a number is too small.
        DataError: the folder is taken.
    """
    root = Path(folder)
    if subjects < 2 or clips < len(CLASSES) or size < 32:
        raise ConfigError(f"expected 2 subjects, {len(CLASSES)} clips and 32 pixels at least")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: exists and is not empty; name another folder")
    listed = []
    for subject in range(subjects):
        rng = np.random.default_rng((seed, subject))
        face = _face(4 * size, rng)
        for number in range(clips):
            label = number % len(CLASSES)
            frames, apex, flow = _clip(face, size, CLASSES[label], rng, noise, amplitude)
            name = f"{number:02}"
            place = f"frames/p{subject:02}/{name}"
            for index, frame in enumerate(frames):
                write_image(root / place / f"{index:02}.png", frame)
            clip = Clip(
                dataset="procedural",
                subject=f"p{subject:02}",
                clip=name,
                label=label,
                emotion=CLASSES[label],
                onset=0,
                apex=apex,
                offset=len(frames) - 1,
                onset_path=f"{place}/00.png",
                apex_path=f"{place}/{apex:02}.png",
                fps=100.0,
            )
            target = root / "flow" / f"{clip.key}.flo"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_flow(str(target), flow)
            listed.append(clip)
    marker = {"layout": "micro-expressions", "seed": seed, "subjects": subjects, "clips": clips, "size": size}
    write_bytes(root / MARKER, (json.dumps(marker, indent=2) + "\n").encode())
    write_manifest(root / "manifest.csv", listed)
    return listed


def _face(side: int, rng: np.random.Generator) -> np.ndarray:
    """A drawn face, side×side×3 float32 in 0..255, with skin that has enough grain for any flow method."""

    def at(x: float, y: float) -> tuple[int, int]:
        return round((x + rng.normal(0, 0.008)) * side), round((y + rng.normal(0, 0.008)) * side)

    def length(part: float) -> int:
        return max(1, round(part * side * rng.uniform(0.85, 1.15)))

    skin = rng.uniform(0.45, 0.95) * np.array([230.0, 190.0, 165.0])
    picture = np.full((side, side, 3), rng.uniform(40, 110, 3), np.float32)
    cv2.ellipse(picture, at(0.5, 0.5), (length(0.44), length(0.52)), 0, 0, 360, skin.tolist(), -1)
    dark, lips = (0.25 * skin).tolist(), (skin * (0.85, 0.5, 0.5)).tolist()
    for x in (0.32, 0.68):
        cv2.ellipse(picture, at(x, 0.29), (length(0.11), length(0.02)), 0, 0, 360, dark, -1)
        cv2.ellipse(picture, at(x, 0.39), (length(0.07), length(0.03)), 0, 0, 360, (235.0, 235.0, 230.0), -1)
        cv2.circle(picture, at(x, 0.39), length(0.025), dark, -1)
    cv2.ellipse(picture, at(0.5, 0.6), (length(0.05), length(0.03)), 0, 0, 180, (0.7 * skin).tolist(), length(0.01))
    cv2.ellipse(picture, at(0.5, 0.76), (length(0.13), length(0.03)), 0, 0, 360, lips, -1)
    grain = np.zeros((side, side), np.float32)
    for cells, strength in ((6, 6.0), (24, 9.0), (64, 8.0)):
        coarse = rng.normal(0, strength, (cells, cells)).astype(np.float32)
        grain += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(np.clip(picture + grain[..., None], 0, 255), (0, 0), side / 200)


def _clip(
    face: np.ndarray,
    size: int,
    emotion: str,
    rng: np.random.Generator,
    noise: float,
    amplitude: tuple[float, float],
) -> tuple[list[np.ndarray], int, np.ndarray]:
    """Nine frames, the apex's index, and the exact flow from frame 0 to the apex, size×size×2."""
    unit = size / 128
    strength = rng.uniform(*amplitude) * unit
    spots = []
    for x, y, spread, dx, dy in MOVES[emotion]:
        centre = (np.array([x, y]) + rng.normal(0, 0.015, 2)) * size
        spots.append((centre, spread * size, strength * rng.uniform(0.6, 1.2) * np.array([dx, dy])))
    drift = np.concatenate([rng.normal(0, 0.6 * unit, 2), rng.normal(0, 0.006, 2)])
    apex = int(rng.integers(3, 7))
    count = 9
    rise = [min(index / apex, (count - 1 - index) / (count - 1 - apex)) for index in range(count)]
    frames, exact = [], np.zeros((size, size, 2), np.float32)
    for index in range(count):
        part, turned = np.sin(0.5 * np.pi * rise[index]), drift * index / (count - 1)
        if index == apex:
            exact = _motion(_grid(size), size, spots, part, turned).astype(np.float32)
        frames.append(_render(face, size, spots, part, turned, rng, noise))
    return frames, apex, exact


def _grid(size: int) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return np.stack([columns, rows], axis=-1).astype(np.float64)


def _motion(points: np.ndarray, size: int, spots: list, part: float, drift: np.ndarray) -> np.ndarray:
    """Displacement of points ...×2 (pixels of the onset): skin first, then the head."""
    moved = np.zeros_like(points)
    for centre, spread, direction in spots:
        distance = ((points - centre) ** 2).sum(-1) / spread**2
        moved += part * np.exp(-0.5 * distance)[..., None] * direction
    centred = points + moved - size / 2
    scale, angle = drift[2:]
    turned = np.stack(
        [scale * centred[..., 0] - angle * centred[..., 1], angle * centred[..., 0] + scale * centred[..., 1]], axis=-1
    )
    return moved + turned + drift[:2]


def _render(
    face: np.ndarray,
    size: int,
    spots: list,
    part: float,
    drift: np.ndarray,
    rng: np.random.Generator,
    noise: float,
) -> np.ndarray:
    """The face with its points moved: each pixel looks up where it came from, found by fixed-point iteration."""
    grid = _grid(size)
    source = grid.copy()
    for _ in range(6):
        source = grid - _motion(source, size, spots, part, drift)
    scale = len(face) / size
    # Pixel centres of the small picture in the large one, which is blurred to the small one's resolution.
    place = ((source + 0.5) * scale - 0.5).astype(np.float32)
    picture = cv2.remap(face, place[..., 0], place[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).round().astype(np.uint8)
