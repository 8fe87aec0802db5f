"""A procedural set of micro-expressions: rendered heads whose action units move a little, in the manifest's form."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ffplug.datasets.formats import write_bytes, write_flow, write_image
from ffplug.datasets.layouts import MARKER
from ffplug.datasets.seeding import derive_seed
from ffplug.errors import ConfigError, DataError
from ffplug_face.crops import align, five_points
from ffplug_face.micro_expression.manifest import CLASSES, Clip, write_manifest
from ffplug_face.models import HeadModel, OpenHead
from ffplug_face.models.head import JOINTS
from ffplug_face.rendering import Camera, Light, random_light
from ffplug_face.sequences import FaceScene, FaceSequence, SequenceOptions

PATTERNS = {
    "negative": (("AU4",), ("AU4", "AU9"), ("AU4", "AU15"), ("AU9", "AU15")),
    "positive": (("AU12",), ("AU6", "AU12")),
    "surprise": (("AU1", "AU2"), ("AU1", "AU2", "AU26"), ("AU2", "AU26")),
}
"""Action units of each class (Ekman and Friesen's numbers), one set of which a clip shows."""

FLOW, EXPRESSION = "flow", "expression"
"""Folders of the exact flow from onset to apex, and of the part of it that is expression."""


def write_example(
    folder: str | os.PathLike[str],
    subjects: int = 8,
    clips: int = 12,
    size: int = 96,
    seed: int = 0,
    noise: float = 2.0,
    intensity: tuple[float, float] = (0.05, 0.2),
    head_motion: float = 0.4,
    flicker: float = 0.02,
    frames: int = 9,
    head: HeadModel | None = None,
) -> list[Clip]:
    """Write a set: ``manifest.csv``, frames and, for each clip, exact flow from onset to apex.

    A subject is an identity with skin, background, light and camera of its own, seen in an upright crop of the face.
    The classes take turns. Each clip shows one of its class's :data:`PATTERNS`, not quite symmetric, from the onset
    by the apex to the offset, while head and light drift. Exact flow lies in ``flow/DATASET/SUBJECT/CLIP.flo``, and
    what the same head pose without expression leaves of it in ``expression/DATASET/SUBJECT/CLIP.flo``. A clip follows
    from the seed and its place alone.

    Args:
        folder: to make; it must be empty or absent.
        subjects: people.
        clips: of each person.
        size: side of the frames in pixels.
        seed: of everything.
        noise: deviation of the camera's noise in grey levels.
        intensity: range of an action unit's strength at the apex; 1 is as strong as it gets, and 0.1 moves a
            smiling mouth's corner by half a pixel in a face 128 pixels wide.
        head_motion: deviation of the head's turn about each axis from the first frame to the last, in degrees; it also
            shifts by as many millimetres.
        flicker: deviation of the light's strength from the first frame to the last.
        frames: of a clip, at least 3.
        head: whose identities and expressions are drawn; :class:`~ffplug_face.models.OpenHead` by default.

    Returns:
        The clips.

    Raises:
        ConfigError: a number is out of its range.
        DataError: the folder is taken, or the head has no action units.
    """
    root = Path(folder)
    if subjects < 2 or clips < len(CLASSES) or size < 32 or frames < 3:
        raise ConfigError(f"expected 2 subjects, {len(CLASSES)} clips, 32 pixels and 3 frames at least")
    if not 0 < intensity[0] <= intensity[1] <= 1 or min(noise, head_motion, flicker) < 0:
        raise ConfigError(
            f"intensity={intensity}, noise={noise}, head_motion={head_motion}, flicker={flicker}: "
            "expected a range within 0..1, and nothing negative"
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root}: exists and is not empty; name another folder")
    head = OpenHead() if head is None else head
    listed = []
    for subject in range(subjects):
        person = _Person.draw(head, derive_seed(seed, "micro-expression subject", subject), size)
        for number in range(clips):
            rng = np.random.default_rng(derive_seed(seed, "micro-expression clip", subject, number))
            label = number % len(CLASSES)
            apex = int(np.clip(rng.integers(frames // 3, 2 * frames // 3 + 1), 1, frames - 2))
            scene = person.scene(CLASSES[label], frames, apex, intensity, head_motion, flicker, rng)
            place = f"frames/p{subject:02}/{number:02}"
            for index in range(frames):
                picture = scene.image(index).permute(1, 2, 0).numpy()
                noisy = picture + rng.normal(0, noise, picture.shape)
                write_image(root / place / f"{index:02}.png", noisy.round().clip(0, 255).astype(np.uint8))
            clip = Clip(
                dataset="procedural",
                subject=f"p{subject:02}",
                clip=f"{number:02}",
                label=label,
                emotion=CLASSES[label],
                onset=0,
                apex=apex,
                offset=frames - 1,
                onset_path=f"{place}/00.png",
                apex_path=f"{place}/{apex:02}.png",
                fps=100.0,
            )
            flow = scene.flow(0, apex)
            for name, part in ((FLOW, flow.facial), (EXPRESSION, flow.expression)):
                target = root / name / f"{clip.key}.flo"
                target.parent.mkdir(parents=True, exist_ok=True)
                write_flow(str(target), part.permute(1, 2, 0).numpy())
            listed.append(clip)
    marker = {"layout": "micro-expressions", "seed": seed, "subjects": subjects, "clips": clips, "size": size}
    write_bytes(root / MARKER, (json.dumps(marker, indent=2) + "\n").encode())
    write_manifest(root / "manifest.csv", listed)
    return listed


@dataclasses.dataclass(frozen=True, eq=False)
class _Person:
    """An identity before a camera; skin and background follow from the seed as in any sequence."""

    head: HeadModel
    seed: int
    shape: np.ndarray
    camera: Camera
    light: Light

    @classmethod
    def draw(cls, head: HeadModel, seed: int, size: int) -> _Person:
        rng = np.random.default_rng(seed)
        shape = rng.normal(0, 1, head.n_shape)
        with torch.no_grad():
            vertices = head(torch.as_tensor(shape[None]).to(head.template))
        points = torch.from_numpy(five_points(head.landmark_names, head.landmarks(vertices.double())[0].numpy()))
        return cls(head, seed, shape, _crop_camera(points, size), random_light(rng))

    def scene(
        self,
        emotion: str,
        frames: int,
        apex: int,
        intensity: tuple[float, float],
        head_motion: float,
        flicker: float,
        rng: np.random.Generator,
    ) -> FaceScene:
        """A clip: an expression that comes and goes while head and light drift."""
        time = np.arange(frames)
        rise = np.minimum(time / apex, (frames - 1 - time) / (frames - 1 - apex))
        course = np.sin(0.5 * np.pi * rise) ** 2
        drift = time / (frames - 1)
        held, turn = rng.normal(0, 2.0, 3), rng.normal(0, head_motion, 3)
        pose = np.zeros((frames, 3 * len(JOINTS)))
        pose[:, 3:6] = Rotation.from_euler("YXZ", held + drift[:, None] * turn, degrees=True).as_rotvec()
        sequence = FaceSequence(
            seed=self.seed,
            emotion=emotion,
            ease="bump",
            progress=course,
            shape=self.shape,
            expression=course[:, None] * self._peak(emotion, intensity, rng),
            pose=pose,
            translation=drift[:, None] * rng.normal(0, 0.001 * head_motion, 3),
            intensity=1 + drift * rng.normal(0, flicker),
            camera=self.camera,
            light=self.light,
        )
        size = (self.camera.height, self.camera.width)
        return FaceScene(self.head, sequence, SequenceOptions(frames=(frames,), size=size))

    def _peak(self, emotion: str, intensity: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
        """Coefficients of the apex; one side of the face is somewhat weaker than the other."""
        patterns = PATTERNS[emotion]
        units = patterns[rng.integers(len(patterns))]
        strength = rng.uniform(*intensity)
        peak = self.head.expression_of({unit: strength * rng.uniform(0.7, 1.0) for unit in units}).double().numpy()
        left, right = rng.uniform(0.7, 1.0, 2)
        sides = [
            left if name.endswith("Left") else right if name.endswith("Right") else 1.0
            for name in self.head.expression_names
        ]
        return peak * sides


def _crop_camera(points: Tensor, size: int, distance: float = 1.2) -> Camera:
    """A camera in front of a face whose five points (5×3, metres) it shows where aligned crops have them."""
    camera = Camera.facing(points.mean(0).tolist(), distance, 10.0, size, size)
    seen = camera.project(points).numpy()
    wanted = align(seen[:, :2], (size, size))
    zoom = math.sqrt(np.linalg.det(wanted.matrix))
    middle, depth = (size - 1) / 2, seen[:, 2].mean()
    focal = zoom * camera.focal
    off = wanted(seen[:, :2]).mean(0) - (zoom * (seen[:, :2].mean(0) - middle) + middle)
    x, y, z = camera.translation
    shift = off * depth / focal
    return dataclasses.replace(camera, focal=focal, translation=(x + float(shift[0]), y + float(shift[1]), z))
