"""Single face crops, in folders as those of CelebA that unsup3d prepares."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ffplug_face.portraits import Pictures, PortraitOptions, Portraits, draw_portraits, render_portraits
from ffplug_face.portraits.videos import TRUTH, read_face, square_side, write_truth

from ffplug.datasets.base import Problem, ScannedDataset, choose
from ffplug.datasets.formats import IMAGE_SUFFIXES, write_image
from ffplug.datasets.layouts import Layout, Part, join, list_folder
from ffplug.datasets.procedural import Recipe
from ffplug.errors import ConfigError
from ffplug_latentface.registry import DATASETS, LAYOUTS, TRANSFORMS
from ffplug_latentface.structures import FaceSample


@TRANSFORMS.register_module()
class LoadFace:
    """Read a face crop, and mirror it at random in training.

    Args:
        size: side of the square that it is resized to.
        flip: chance that it is mirrored; an index without a draw never is.

    Example:
        dict(type="ffplug_latentface.LoadFace", size=64)
    """

    def __init__(self, size: int = 64, flip: float = 0.5) -> None:
        if size < 8 or not 0 <= flip <= 1:
            raise ConfigError(f"LoadFace: size={size}, flip={flip}: expected at least 8, and 0..1")
        self.size, self.flip = size, flip

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Read the picture of an entry."""
        image = read_face(results["image_path"], self.size)
        if results["draw"] is not None and np.random.rand() < self.flip:
            image = image[:, ::-1]
        label = results.pop("label", None)
        sample = FaceSample(metainfo=results)
        if label is not None:
            sample.gt_expr = torch.tensor(label)
        return dict(inputs=torch.from_numpy(image.transpose(2, 0, 1).copy()), data_samples=sample)


class FaceDataset(ScannedDataset):
    """Single faces; an item is ``dict(inputs=3×S×S uint8, data_samples=FaceSample)``.

    Arguments and errors are those of :class:`ffplug.datasets.ScannedDataset`.
    """

    noun = "faces"
    example: ClassVar[Mapping[str, Any]] = {"scenes": 2, "frames": 2, "size": (32, 32)}
    default_pipeline = (dict(type="ffplug_latentface.LoadFace"),)

    def face(self, path: str, **more: Any) -> dict[str, Any]:
        """One entry of the list; the path is below the root."""
        return dict(image_path=path, dataset=self.name, sequence=os.path.dirname(path), sample_id=path, **more)

    def pictures(self, folder: str) -> list[str]:
        """Paths of the pictures in a folder below the root."""
        return [join(folder, file) for file in self.files(folder) if file.lower().endswith(tuple(IMAGE_SUFFIXES))]

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:
        """Put ``data_root`` before the path of an entry."""
        info["image_path"] = join(self.data_root, info["image_path"])
        return info


class PortraitLayout(Layout):
    """A layout whose procedural scenes are portraits of one person each; options are those of portraits."""

    def options(self, difficulty: str, changes: dict[str, Any]) -> PortraitOptions:
        """What portraits are drawn from."""
        return PortraitOptions.of(changes)

    def drawn(self, recipe: Recipe, subset: int, index: int) -> tuple[Portraits, Pictures]:
        """A scene's portraits and pictures; persons of the second part come after those of the first."""
        side = square_side(recipe.size)
        person = index + (0, recipe.scenes)[subset]
        options = self.options(recipe.difficulty, recipe.options)
        portraits = draw_portraits(recipe.seed, person, recipe.frames, options=options)
        return portraits, render_portraits(portraits, side)


def write_picture(path: Path, image: torch.Tensor) -> None:
    """Write a picture 3×S×S, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, image.permute(1, 2, 0).numpy())


_SPLITS = ("train", "val", "test")


@DATASETS.register_module()
class CelebACropDataset(FaceDataset):
    """Face crops in ``train/``, ``val/`` and ``test/``, as unsup3d cuts them out of CelebA.

    Args:
        data_root: the folder of the splits.
        split: ``train``, ``val`` or ``test``.
        pipeline: transforms; None reads at 64×64.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Raises:
        ConfigError: there is no such split.
        DataError: the folder is missing or empty.

    Example:
        dict(type="ffplug_latentface.CelebACropDataset", data_root="data/celeba_crops")
    """

    layout = "celeba-crops"
    title = "CelebA crops"

    def __init__(
        self, data_root: str, split: str = "train", pipeline: Sequence[dict | Callable] | None = None, **kwargs: Any
    ) -> None:
        self.split = choose("split", split, _SPLITS)
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return f"{self.title}/{self.split}"

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the faces."""
        self.require(self.split)
        for path in self.pictures(self.split):
            yield self.face(path)


@LAYOUTS.register_module(name="celeba-crops")
class CelebALayout(PortraitLayout):
    """Crops of CelebA; a procedural scene is some portraits of one person, with their truth."""

    title = "CelebA crops"
    datasets = ("ffplug_latentface.CelebACropDataset",)
    markers = ()
    expected = "{train,val,test}/*.jpg"
    parts = (
        Part("train", datasets[0], dict(split="train"), needed=True),
        Part("val", datasets[0], dict(split="val")),
        Part("test", datasets[0], dict(split="test")),
    )

    def lies_in(self, root: str) -> bool:
        """Whether pictures lie right in ``train/`` and ``val/``."""
        return all(
            any(file.lower().endswith(tuple(IMAGE_SUFFIXES)) for file in list_folder(join(root, split))[1][:8])
            for split in ("train", "val")
        )

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write a person's portraits."""
        portraits, pictures = self.drawn(recipe, subset, index)
        for number, image in enumerate(pictures.images):
            write_picture(folder / _SPLITS[subset] / f"{index:05d}_{number:03d}.png", image)
        write_truth(folder / TRUTH / _SPLITS[subset] / f"{index:05d}.npz", portraits, pictures)
