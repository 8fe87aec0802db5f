"""How the data sets lie on disk, and procedural portraits in the same files."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ffplug_face.portraits import PortraitOptions, Portraits, draw_portraits, render_portraits

from ffplug.datasets.formats import write_image
from ffplug.datasets.layouts import Layout, Part
from ffplug.datasets.procedural import Recipe
from ffplug.datasets.seeding import derive_seed
from ffplug_fpnmaa.datasets.affectnet import BOX, CLASSES, COLUMNS, LISTS, PICTURES
from ffplug_fpnmaa.datasets.affwild2 import FOLDERS, SPLITS, TEST_LISTS
from ffplug_fpnmaa.datasets.annotations import HEADERS, UNKNOWN
from ffplug_fpnmaa.datasets.expw import CLASSES as EXPW_CLASSES
from ffplug_fpnmaa.labels import TASKS
from ffplug_fpnmaa.registry import LAYOUTS

PRESENT = 0.3
"""Intensity from which an action unit counts as there."""

LABELLED = (("va", "expr", "au"), ("va", "expr"), ("va", "au"), ("expr", "au"))
"""Tasks of the videos of one person after another: hardly any is labelled with all three."""

PHASE = 12
"""Frames of a procedural video from one state of the face to the next."""


class _PortraitLayout(Layout):
    """What the three have in common: portraits, one person a scene."""

    def options(self, difficulty: str, changes: dict[str, Any]) -> PortraitOptions:
        """What portraits are drawn from; difficulty and textures make no difference."""
        return PortraitOptions.of(changes)

    def person(self, recipe: Recipe, subset: int, index: int) -> int:
        """The person of a scene; nobody is in both parts."""
        return index + (0, recipe.scenes)[subset]

    def portraits(self, recipe: Recipe, subset: int, index: int, video: int = 0, **changes: Any) -> Portraits:
        """What a scene shows; it follows from the recipe alone."""
        options = self.options(recipe.difficulty, {**changes, **recipe.options})
        return draw_portraits(recipe.seed, self.person(recipe, subset, index), recipe.frames, video, options)

    @staticmethod
    def side(recipe: Recipe) -> int:
        """The side of a face's crop: the smaller one of the recipe's size."""
        return min(recipe.size)

    @staticmethod
    def rng(recipe: Recipe, *parts: int | str) -> np.random.Generator:
        """Randomness beside the portraits."""
        return np.random.default_rng(derive_seed(recipe.seed, "affect layout", *parts))


def classes_of(portraits: Portraits) -> np.ndarray:
    """The expression of each portrait; a face that hardly moves is neutral."""
    return np.where(portraits.action_units.max(axis=1) < 0.2, 0, portraits.expression)


@LAYOUTS.register_module(name="affwild2")
class AffWild2Layout(_PortraitLayout):
    """Aff-Wild2's second release; a procedural scene is a person's video, the first person's one of two people.

    Some frames have no picture, some labels are not known, and most videos lack one of the three tasks.
    """

    title = "Aff-Wild2"
    datasets = ("ffplug_fpnmaa.AffWild2Dataset",)
    markers = ("annotations/VA_Set", "annotations/EXPR_Set", "annotations/AU_Set")
    expected = "annotations/{VA_Set,EXPR_Set,AU_Set}/{Train_Set,Validation_Set}/*.txt and cropped_aligned/VIDEO/*.jpg"
    parts = (
        Part("annotations", "ffplug_fpnmaa.AffWild2Dataset", dict(split="train"), needed=True),
        Part("annotations", "ffplug_fpnmaa.AffWild2Dataset", dict(split="validation")),
    )

    def videos(self, recipe: Recipe, subset: int, index: int) -> list[str]:
        """Names of a scene's videos."""
        name = f"{('train', 'validation')[subset]}{index + 1:03d}"
        return [f"{name}_left", f"{name}_right"] if index == 0 else [name]

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write the pictures and the labels of a person's videos."""
        side, split = self.side(recipe), (*SPLITS.values(),)[subset]
        tasks = TASKS if subset else LABELLED[index % len(LABELLED)]
        for video, name in enumerate(self.videos(recipe, subset, index)):
            portraits = self.portraits(recipe, subset, index, video, every=PHASE)
            rng = self.rng(recipe, subset, index, video)
            shown = rng.random(recipe.frames) >= 0.08
            shown[0] = True
            images = render_portraits(portraits[shown.nonzero()[0]], side).images
            target = folder / "cropped_aligned" / name
            target.mkdir(parents=True)
            for place, image in zip(shown.nonzero()[0], images, strict=True):
                write_image(target / f"{place + 1:05d}.jpg", image.permute(1, 2, 0).numpy())
            for task in tasks:
                path = folder / "annotations" / FOLDERS[task] / split / f"{name}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                unknown = rng.random(recipe.frames) < 0.05
                lines = [",".join(HEADERS[task]), *_lines(portraits, task, unknown)]
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def finish(self, folder: Path, recipe: Recipe) -> None:
        """Write the lists of test videos: those of validation."""
        videos = [name for index in range(recipe.test_scenes) for name in self.videos(recipe, 1, index)]
        for name in TEST_LISTS.values():
            (folder / name).write_text("".join(f"{video} {recipe.frames}\n" for video in videos), encoding="utf-8")


def _lines(portraits: Portraits, task: str, unknown: np.ndarray) -> Iterable[str]:
    classes = classes_of(portraits)
    for frame in range(len(portraits)):
        width = len(HEADERS[task]) if task != "expr" else 1
        if unknown[frame]:
            yield ",".join([str(UNKNOWN[task])] * width)
        elif task == "va":
            yield ",".join(f"{value:.4f}" for value in portraits.affect[frame].clip(-1, 1))
        elif task == "expr":
            yield str(classes[frame])
        else:
            yield ",".join(str(int(value > PRESENT)) for value in portraits.action_units[frame])


def _scene_picture(image: np.ndarray, corner: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture of noise with a face in it, its top left corner at (x, y)."""
    side, (x, y) = len(image), corner
    picture = rng.integers(90, 120, (3 * side // 2, 3 * side // 2, 3)).astype(np.uint8)
    picture[y : y + side, x : x + side] = image
    return picture


@LAYOUTS.register_module(name="affectnet")
class AffectNetLayout(_PortraitLayout):
    """AffectNet's manually annotated part; a procedural scene is a person's pictures, larger than the face's box."""

    title = "AffectNet"
    datasets = ("ffplug_fpnmaa.AffectNetDataset",)
    markers = (LISTS,)
    expected = f"{LISTS}/{{training,validation}}.csv and {PICTURES}/"
    parts = (
        Part(LISTS, "ffplug_fpnmaa.AffectNetDataset", dict(split="train"), needed=True),
        Part(LISTS, "ffplug_fpnmaa.AffectNetDataset", dict(split="validation")),
    )

    def _places(self, recipe: Recipe, subset: int, index: int) -> np.ndarray:
        side = self.side(recipe)
        return self.rng(recipe, subset, index).integers(0, side // 2 + 1, (recipe.frames, 2))

    @staticmethod
    def _name(subset: int, index: int, frame: int) -> str:
        return f"{100 * subset + index + 1}/{frame:05d}.jpg"

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write a person's pictures."""
        side = self.side(recipe)
        images = render_portraits(self.portraits(recipe, subset, index), side).images
        rng = self.rng(recipe, subset, index, "noise")
        for frame, place in enumerate(self._places(recipe, subset, index)):
            path = folder / PICTURES / self._name(subset, index, frame)
            path.parent.mkdir(parents=True, exist_ok=True)
            face = images[frame].permute(1, 2, 0).numpy()
            write_image(path, _scene_picture(face, place, rng))

    def finish(self, folder: Path, recipe: Recipe) -> None:
        """Write both lists; the last row of each is no face."""
        side = self.side(recipe)
        (folder / LISTS).mkdir(parents=True, exist_ok=True)
        for subset, (name, scenes) in enumerate((("training", recipe.scenes), ("validation", recipe.test_scenes))):
            with open(folder / LISTS / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow([COLUMNS[0], *BOX, "facial_landmarks", *COLUMNS[1:]])
                for index in range(scenes):
                    portraits = self.portraits(recipe, subset, index)
                    classes = classes_of(portraits)
                    for frame, (x, y) in enumerate(self._places(recipe, subset, index)):
                        kind = CLASSES.index(int(classes[frame]))
                        va = [f"{value:.4f}" for value in portraits.affect[frame].clip(-1, 1)]
                        row = [self._name(subset, index, frame), x, y, side, side, "", kind, *va]
                        writer.writerow(row)
                last = [self._name(subset, scenes - 1, recipe.frames - 1), 0, 0, side, side, "", 10, -2, -2]
                writer.writerow(last)


@LAYOUTS.register_module(name="expw")
class ExpWLayout(_PortraitLayout):
    """ExpW; a procedural scene is a person's faces, two in a picture."""

    title = "ExpW"
    datasets = ("ffplug_fpnmaa.ExpWDataset",)
    markers = ("label.lst", "label/label.lst")
    expected = "label.lst (or label/label.lst) and image/origin/, origin/ or image/"
    parts = (Part("", "ffplug_fpnmaa.ExpWDataset", needed=True),)
    has_test = False

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write a person's pictures."""
        side = self.side(recipe)
        images = render_portraits(self.portraits(recipe, subset, index), side).images
        (folder / "image" / "origin").mkdir(parents=True)
        for first in range(0, recipe.frames, 2):
            faces = images[first : first + 2].permute(2, 0, 3, 1).flatten(1, 2).numpy()
            write_image(folder / "image" / "origin" / f"scene{index:04d}_{first // 2:03d}.jpg", faces)

    def finish(self, folder: Path, recipe: Recipe) -> None:
        """Write the list."""
        side, lines = self.side(recipe), []
        for index in range(recipe.scenes):
            for frame, kind in enumerate(classes_of(self.portraits(recipe, 0, index))):
                name, left = f"scene{index:04d}_{frame // 2:03d}.jpg", side * (frame % 2)
                label = EXPW_CLASSES.index(int(kind))
                lines.append(f"{name} {frame % 2} 0 {left} {left + side} {side} {60 + frame % 40}.5 {label}")
        (folder / "label.lst").write_text("\n".join(lines) + "\n", encoding="utf-8")
