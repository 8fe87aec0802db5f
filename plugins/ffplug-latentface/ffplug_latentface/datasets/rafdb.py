"""RAF-DB's basic expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ffplug_face.portraits import EXPRESSIONS as DRAWN
from ffplug_face.portraits import draw_portraits

from ffplug.datasets.base import Problem, choose
from ffplug.datasets.formats import read_bytes
from ffplug.datasets.layouts import Part, join
from ffplug.datasets.procedural import Recipe
from ffplug.errors import DataError
from ffplug_latentface.datasets.faces import FaceDataset, PortraitLayout, write_picture
from ffplug_latentface.registry import DATASETS, LAYOUTS

EXPRESSIONS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
"""Classes in order; the list on disk counts them from 1."""

LIST = "list_patition_label.txt"
"""The list's name, spelt as published."""

_PUBLISHED = {"train": 12271, "test": 3068}


@DATASETS.register_module()
class RAFDBDataset(FaceDataset):
    """RAF-DB: ``aligned/train_00001_aligned.jpg`` and ``list_patition_label.txt`` with lines ``train_00001.jpg 5``.

    Args:
        data_root: the folder ``basic`` with both, or its parts ``Image`` and ``EmoLabel``.
        split: ``train`` or ``test``.
        pipeline: transforms; None reads at 64×64.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Raises:
        ConfigError: there is no such split.
        DataError: the list is missing or a line of it is wrong (named by its number), or a picture is missing.

    Example:
        dict(type="ffplug_latentface.RAFDBDataset", data_root="data/RAF-DB")
    """

    layout = "raf-db"
    title = "RAF-DB"

    def __init__(
        self, data_root: str, split: str = "train", pipeline: Sequence[dict | Callable] | None = None, **kwargs: Any
    ) -> None:
        self.split = choose("split", split, ("train", "test"))
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return f"{self.title}/{self.split}"

    @property
    def published_pairs(self) -> int:  # noqa: D102 (see the base class)
        return _PUBLISHED[self.split]

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the faces of the list."""
        folder = self.require("aligned", "Image/aligned")
        there = set(self.files(folder))
        path = join(self.data_root, f"EmoLabel/{LIST}" if LIST in self.files("EmoLabel") else LIST)
        for number, line in enumerate(read_bytes(path).decode("utf-8", "replace").splitlines(), 1):
            if not line.strip():
                continue
            fields = line.split()
            if len(fields) != 2 or not fields[1].isdigit() or not 1 <= int(fields[1]) <= len(EXPRESSIONS):
                raise DataError(f"{path}:{number}: {line!r}: expected a file and a class 1..{len(EXPRESSIONS)}")
            stem, _, suffix = fields[0].rpartition(".")
            if not stem.startswith(f"{self.split}_"):
                continue
            file = f"{stem}_aligned.{suffix}"
            if file not in there:
                problems.append(Problem(join(folder, file), f"this picture is missing (line {number} of {LIST})"))
                continue
            yield self.face(join(folder, file), label=int(fields[1]) - 1)


@LAYOUTS.register_module(name="raf-db")
class RAFDBLayout(PortraitLayout):
    """RAF-DB; a procedural scene is some portraits of one person."""

    title = "RAF-DB"
    datasets = ("ffplug_latentface.RAFDBDataset",)
    markers = (LIST, f"EmoLabel/{LIST}")
    expected = f"aligned/*_aligned.jpg and {LIST}"
    parts = (
        Part("aligned", datasets[0], dict(split="train"), needed=True),
        Part("aligned", datasets[0], dict(split="test")),
    )

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write a person's portraits."""
        _, pictures = self.drawn(recipe, subset, index)
        for number, image in enumerate(pictures.images):
            write_picture(folder / "aligned" / f"{_stem(recipe, subset, index, number)}_aligned.png", image)

    def finish(self, folder: Path, recipe: Recipe) -> None:
        """Write the list."""
        options = self.options(recipe.difficulty, recipe.options)
        lines = []
        for subset, count in ((0, recipe.scenes), (1, recipe.test_scenes)):
            for index in range(count):
                person = index + (0, recipe.scenes)[subset]
                classes = draw_portraits(recipe.seed, person, recipe.frames, options=options).expression
                for number, label in enumerate(classes):
                    value = EXPRESSIONS.index(DRAWN[label]) + 1
                    lines.append(f"{_stem(recipe, subset, index, number)}.png {value}\n")
        (folder / LIST).write_text("".join(lines))


def _stem(recipe: Recipe, subset: int, index: int, number: int) -> str:
    return f"{('train', 'test')[subset]}_{index * recipe.frames + number + 1:05d}"
