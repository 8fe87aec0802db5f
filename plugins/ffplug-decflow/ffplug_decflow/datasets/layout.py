"""FacialFlowNet's layout, and the generator that writes sequences of a procedural head into it."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ffplug_face.models import HeadModel, OpenHead
from ffplug_face.sequences import FaceScene, SequenceOptions, draw_sequence

from ffplug.datasets import write_flow, write_image
from ffplug.datasets.formats import write_bytes, write_mask
from ffplug.datasets.layouts import Layout, Part
from ffplug.datasets.procedural import Recipe
from ffplug.errors import ConfigError, did_you_mean
from ffplug_decflow.registry import LAYOUTS

LENGTHS = (5, 10, 15, 20)
"""Frames of FacialFlowNet's sequences."""

_OF_RECIPE = ("frames", "size", "backgrounds")
_READER = "ffplug_decflow.FacialFlowNetDataset"


@functools.cache
def open_head() -> HeadModel:
    """The head of all sequences, made once per process."""
    return OpenHead()


@LAYOUTS.register_module(name="ffn")
class FacialFlowNetLayout(Layout):
    """How FacialFlowNet lies on disk; a procedural scene is one sequence of one person, drawn by ``ffplug_face``.

    A sequence has 5, 10, 15 or 20 frames, at most as many as the recipe says (or, below 5, exactly as many). The scenes
    of the second part are the split ``val``. Head frames show the pose of their time and the expression of the frame
    before. What was drawn is in ``meta/``. The options are those of
    :class:`~ffplug_face.sequences.SequenceOptions`, less what the recipe says: frames, size and backgrounds.
    """

    title = "FacialFlowNet"
    datasets = (_READER,)
    markers = ("image/facial", "flow/head")
    expected = "image/facial, flow/facial, flow/head and mask, each with train, val or test"
    parts = (
        Part("image/facial/train", _READER, dict(split="train"), needed=True),
        Part("image/facial/val", _READER, dict(split="val")),
        Part("image/facial/test", _READER, dict(split="test")),
    )
    splits: ClassVar[tuple[str, str]] = ("train", "val")

    def options(self, difficulty: str, changes: dict[str, Any]) -> SequenceOptions:
        """What sequences are drawn from; the difficulty makes no difference."""
        names = [field.name for field in dataclasses.fields(SequenceOptions) if field.name not in _OF_RECIPE]
        for name in changes:
            if name not in names:
                near = did_you_mean(name, names)
                raise ConfigError(f"option {name!r} is unknown: expected one of {', '.join(names)}{near}")
        return SequenceOptions(**{k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()})

    def scene(self, recipe: Recipe, subset: int, index: int) -> FaceScene:
        """The scene that is written for ``index`` of a part; it follows from the recipe alone."""
        lengths = tuple(length for length in LENGTHS if length <= recipe.frames) or (recipe.frames,)
        options = dataclasses.replace(
            self.options(recipe.difficulty, recipe.options),
            frames=lengths,
            size=recipe.size,
            backgrounds=recipe.textures,
        )
        head = open_head()
        return FaceScene(head, draw_sequence(head, recipe.seed, 2 * index + subset, options), options)

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write one sequence: frames, facial and head flow, masks, occlusion and what was drawn."""
        scene = self.scene(recipe, subset, index)
        below = f"{self.splits[subset]}/{scene.sequence.emotion}/{index:06d}"
        for frame in range(len(scene)):
            stem = f"{below}/{frame:04d}"
            held = scene.image(frame, max(frame - 1, 0))
            write_image(folder / f"image/facial/{stem}.jpg", _picture(scene.image(frame)))
            write_image(folder / f"image/head/{stem}.jpg", _picture(held))
            if frame + 1 == len(scene):
                mask = scene.surface(frame, frame).mask.numpy()
            else:
                flow = scene.flow(frame)
                mask = flow.mask.numpy()
                for kind in ("facial", "head"):
                    values = getattr(flow, kind).permute(1, 2, 0).contiguous().numpy()
                    write_flow(folder / f"flow/{kind}/{stem}.flo", values)
                write_mask(folder / f"occlusion/{stem}.png", ~flow.visible.numpy())
            _write_array(folder / f"mask/{stem}.npy", mask.astype(np.uint8))
        record = json.dumps(scene.sequence.record())
        write_bytes(folder / f"meta/{below}.json", record.encode())


def _picture(image: object) -> np.ndarray:
    return image.permute(1, 2, 0).contiguous().numpy()


def _write_array(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=False)
