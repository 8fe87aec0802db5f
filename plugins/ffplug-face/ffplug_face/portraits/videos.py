"""Videos of faces as folders of pictures, as VoxCeleb's are kept, and portraits written in that layout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement

from ffplug.datasets.base import Problem, ScannedDataset, choose
from ffplug.datasets.formats import IMAGE_SUFFIXES, read_image, write_image
from ffplug.datasets.layouts import Layout, Part, join, list_folder
from ffplug.datasets.procedural import Recipe
from ffplug.errors import ConfigError, DataError
from ffplug.structures import Field, shown_name
from ffplug_face.portraits.factors import PortraitOptions, Portraits, draw_portraits
from ffplug_face.portraits.rendering import Pictures, render_portraits
from ffplug_face.registry import DATASETS, LAYOUTS, TRANSFORMS

SPLITS = ("train", "val")
TRUTH = "truth"
"""Folder of what is known of portraits: ``truth/train/id00001/00001.npz``."""

_READER = "ffplug_face.FaceVideoDataset"


class FaceVideoSample(BaseDataElement):
    """Frames of one video.

    Its metainfo holds ``dataset``, ``person``, ``sequence``, ``sample_id`` (str), ``frames`` (the files taken),
    ``procedural`` (bool) and ``draw``.
    """

    FIELDS: ClassVar[dict[str, Field]] = {"inputs": Field("N 3 S S", torch.uint8)}

    @property
    def source(self) -> str:
        """The data set's name as it must be shown."""
        return shown_name(self.get("dataset", "unknown data"), self.get("procedural", False))


@TRANSFORMS.register_module()
class LoadFaceFrames:
    """Read some frames of a video.

    In training they are drawn with replacement and mirrored at random, each for itself; an index without a draw gives
    frames at even distances, not mirrored.

    Args:
        frames: how many.
        size: side of the square that they are resized to.
        flip: chance that a frame is mirrored.

    Example:
        dict(type="ffplug_face.LoadFaceFrames", frames=16, size=64)
    """

    def __init__(self, frames: int = 16, size: int = 64, flip: float = 0.5) -> None:
        if frames < 1 or size < 8 or not 0 <= flip <= 1:
            raise ConfigError(f"LoadFaceFrames: frames={frames}, size={size}, flip={flip}: expected 1, 8 and 0..1")
        self.frames, self.size, self.flip = frames, size, flip

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Read the frames of an entry."""
        paths = results.pop("frame_paths")
        if results["draw"] is None:
            chosen = np.linspace(0, len(paths) - 1, self.frames).round().astype(int)
            mirrored = np.zeros(self.frames, bool)
        else:
            chosen = np.random.randint(len(paths), size=self.frames)
            mirrored = np.random.rand(self.frames) < self.flip
        images = np.stack([read_face(paths[index], self.size) for index in chosen])
        images[mirrored] = images[mirrored, :, ::-1]
        sample = FaceVideoSample(metainfo={**results, "frames": [os.path.basename(paths[index]) for index in chosen]})
        return dict(inputs=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), data_samples=sample)


def read_face(path: str, size: int) -> np.ndarray:
    """Read a square picture of a face as size×size×3 uint8.

    Raises:
        DataError: the file is no picture, or not square: crop the face first.
    """
    image = read_image(path)
    height, width = image.shape[:2]
    if height != width:
        raise DataError(f"{path}: {height}×{width} pixels: expected a square crop of a face")
    if height == size:
        return image
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if height > size else cv2.INTER_LINEAR)


@DATASETS.register_module()
class FaceVideoDataset(ScannedDataset):
    """Videos of face crops: every folder below ``train/`` or ``val/`` with enough pictures is one.

    Only files count whose name holds the pattern, as VoxCeleb's recropped frames ``00001_recrop.png``; the first folder
    below the split names the person. An item is ``dict(inputs=N×3×S×S uint8, data_samples=FaceVideoSample)``.

    Args:
        data_root: the folder of ``train/`` and ``val/``.
        split: ``train`` or ``val``.
        min_frames: fewest pictures of a video; folders with fewer are left out and counted.
        pattern: what the files' names hold.
        pipeline: transforms; None reads 16 frames at 64×64.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: the folder is missing, or holds no video.

    Example:
        dict(
            type="ffplug_face.FaceVideoDataset",
            data_root="data/VoxCeleb1",
            min_frames=2,
            pipeline=[dict(type="ffplug_face.LoadFaceFrames", frames=2, size=32)],
        )
    """

    layout = "voxceleb"
    title = "VoxCeleb"
    noun = "videos"
    example: ClassVar[Mapping[str, Any]] = {"scenes": 2, "frames": 3, "size": (32, 32)}
    default_pipeline = (dict(type="ffplug_face.LoadFaceFrames"),)

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        min_frames: int = 16,
        pattern: str = "recrop",
        pipeline: Sequence[dict | Callable] | None = None,
        **kwargs: Any,
    ) -> None:
        self.split = choose("split", split, SPLITS)
        if min_frames < 1:
            raise ConfigError(f"min_frames={min_frames}: expected at least 1")
        self.min_frames, self.pattern = min_frames, pattern
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return f"{self.title}/{self.split}"

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the videos, person by person."""
        self.require(self.split)
        for person in self.folders(self.split):
            yield from self._scan_folder(join(self.split, person), person)

    def _scan_folder(self, folder: str, person: str) -> Iterable[dict[str, Any]]:
        frames = [
            file for file in self.files(folder) if self.pattern in file and file.lower().endswith(tuple(IMAGE_SUFFIXES))
        ]
        if len(frames) >= self.min_frames:
            yield dict(
                frame_paths=[join(folder, file) for file in frames],
                dataset=self.name,
                person=person,
                sequence=folder,
                sample_id=folder,
            )
        for inner in self.folders(folder):
            yield from self._scan_folder(join(folder, inner), person)

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:
        """Put ``data_root`` before the paths of an entry."""
        info["frame_paths"] = [join(self.data_root, path) for path in info["frame_paths"]]
        return info


@LAYOUTS.register_module(name="voxceleb")
class VoxCelebLayout(Layout):
    """Recropped frames of VoxCeleb; a procedural scene is one person's video of portraits, with truth beside it.

    Frames are square, with the smaller side of the recipe's size. The options are
    those of :class:`~ffplug_face.portraits.PortraitOptions`; the difficulty and the
    textures make no difference.
    """

    title = "VoxCeleb face frames"
    datasets = (_READER,)
    markers = ()
    expected = "{train,val}/PERSON/VIDEO/*recrop*.png, 16 or more in a folder"
    parts = (
        Part("train", _READER, dict(split="train", min_frames=1)),
        Part("val", _READER, dict(split="val", min_frames=1)),
    )

    def lies_in(self, root: str) -> bool:
        """Whether recropped frames lie two levels below ``train/``."""
        for person in list_folder(join(root, "train"))[0][:4]:
            for video in list_folder(join(root, "train", person))[0][:4]:
                if any("recrop" in file for file in list_folder(join(root, "train", person, video))[1][:8]):
                    return True
        return False

    def options(self, difficulty: str, changes: dict[str, Any]) -> PortraitOptions:
        """What portraits are drawn from."""
        return PortraitOptions.of(changes)

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write the frames of a person's video, and what they show."""
        side = square_side(recipe.size)
        person = index + (0, recipe.scenes)[subset]
        options = self.options(recipe.difficulty, recipe.options)
        portraits = draw_portraits(recipe.seed, person, recipe.frames, options=options)
        pictures = render_portraits(portraits, side)
        place = Path(SPLITS[subset]) / f"id{person + 1:05d}"
        for number, image in enumerate(pictures.images):
            target = folder / place / "00001" / f"{number + 1:05d}_recrop.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, image.permute(1, 2, 0).numpy())
        write_truth(folder / TRUTH / place / "00001.npz", portraits, pictures)


def square_side(size: tuple[int, int]) -> int:
    """The side of square pictures: the smaller one."""
    return min(size)


def write_truth(path: Path, portraits: Portraits, pictures: Pictures) -> None:
    """Write what is known of portraits: the arrays of :class:`Portraits`, and ``depth``, ``albedo``, ``mask``,
    ``image_depth`` and ``image_mask`` of :class:`Pictures`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    maps = dict(
        depth=pictures.depth.numpy(),
        albedo=pictures.albedo.half().numpy(),
        mask=pictures.mask.numpy(),
        image_depth=pictures.image_depth.numpy(),
        image_mask=pictures.image_mask.numpy(),
    )
    np.savez_compressed(path, **portraits.arrays(), **maps)


def read_truth(path: str | os.PathLike) -> tuple[Portraits, dict[str, np.ndarray]]:
    """Read what :func:`write_truth` wrote: the portraits, and the maps by name.

    Raises:
        DataError: the file is missing or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        names = Portraits.__dataclass_fields__
        return Portraits(**{name: arrays.pop(name) for name in names}), arrays
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: no truth of portraits: {error}; write the set again with `ffplug synth`") from None
