"""Labelled Faces in the Wild, and its protocols of verification."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ffplug.datasets.base import Problem
from ffplug.datasets.layouts import Part, join, list_folder
from ffplug.datasets.procedural import Recipe
from ffplug.errors import DataError
from ffplug_latentface.datasets.faces import FaceDataset, PortraitLayout, write_picture
from ffplug_latentface.registry import DATASETS, LAYOUTS

CROPS = "lfw_crop"
FOLDS = 10


def read_pairs(path: str | os.PathLike) -> list[tuple[str, str, bool]]:
    """Read ``pairs.txt`` of LFW, or ``pair_SLLFW.txt``.

    LFW's has a header, then ``PERSON 1 4`` (the same person) or ``PERSON 1 OTHER 2``, with tabs; SLLFW's has two lines
    ``PERSON/PERSON_0001.jpg`` for each pair.

    Returns:
        Two pictures as ``PERSON/PERSON_0001`` and whether they show the same person, in the file's order, which is that
        of the folds.

    Raises:
        DataError: the file is missing, or a line of it is wrong; the message has its number.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from None
    lines = [line.rstrip() for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    if lines and "/" in lines[0]:
        if len(lines) % 2:
            raise DataError(f"{path}: {len(lines)} lines: expected two for each pair")
        stems = [line.rpartition(".")[0] or line for line in lines]
        return [(a, b, a.split("/")[0] == b.split("/")[0]) for a, b in zip(stems[::2], stems[1::2], strict=True)]
    pairs = []
    for number, line in enumerate(lines[1:], 2):
        fields = line.split("\t")
        digits = fields[1:] if len(fields) == 3 else [fields[k] for k in (1, 3) if k < len(fields)]
        if len(fields) not in (3, 4) or not all(field.isdigit() for field in digits):
            raise DataError(
                f"{path}:{number}: {line!r}: expected PERSON, number, number, or PERSON, number, PERSON, number"
            )
        other = fields[0] if len(fields) == 3 else fields[2]
        first, second = (int(field) for field in digits)
        pairs.append((_stem(fields[0], first), _stem(other, second), len(fields) == 3))
    if not pairs:
        raise DataError(f"{path}: no pairs")
    return pairs


def _stem(person: str, number: int) -> str:
    return f"{person}/{person}_{number:04d}"


@DATASETS.register_module()
class LFWDataset(FaceDataset):
    """LFW's crops: ``lfw_crop/PERSON/PERSON_0001.jpg``; :func:`read_pairs` tells which to compare.

    Args:
        data_root: the folder that holds ``lfw_crop`` and ``pairs.txt``.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Raises:
        DataError: the folder is missing or empty.

    Example:
        dict(type="ffplug_latentface.LFWDataset", data_root="data/LFW")
    """

    layout = "lfw"
    title = "LFW"

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the faces, person by person."""
        self.require(CROPS)
        for person in self.folders(CROPS):
            for path in self.pictures(join(CROPS, person)):
                stem = path.rpartition("/")[2].rpartition(".")[0]
                yield self.face(path, stem=f"{person}/{stem}")


@LAYOUTS.register_module(name="lfw")
class LFWLayout(PortraitLayout):
    """LFW; a procedural scene is some portraits of one person, and the list has ten folds of pairs."""

    title = "LFW"
    datasets = ("ffplug_latentface.LFWDataset",)
    markers = (CROPS,)
    expected = f"{CROPS}/PERSON/PERSON_0001.jpg and pairs.txt"
    parts = (Part(CROPS, datasets[0], needed=True),)
    has_test = False

    def lies_in(self, root: str) -> bool:
        """Whether there are crops."""
        return bool(list_folder(join(root, CROPS))[0])

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write a person's portraits."""
        _, pictures = self.drawn(recipe, subset, index)
        for number, image in enumerate(pictures.images):
            write_picture(folder / CROPS / f"{_stem(f'Person_{index:04d}', number + 1)}.png", image)

    def finish(self, folder: Path, recipe: Recipe) -> None:
        """Write the pairs: in each fold as many of the same person as of two."""
        rng = np.random.default_rng(recipe.seed)
        people = [f"Person_{index:04d}" for index in range(recipe.scenes)]
        each = max(1, recipe.scenes * recipe.frames // (2 * FOLDS))
        lines = [f"{FOLDS}\t{each}"]
        for _ in range(FOLDS):
            for _ in range(each):
                first, second = rng.choice(recipe.frames, 2, replace=False) + 1
                lines.append(f"{rng.choice(people)}\t{first}\t{second}")
            for _ in range(each):
                one, other = rng.choice(people, 2, replace=len(people) < 2)
                first, second = rng.integers(1, recipe.frames + 1, 2)
                lines.append(f"{one}\t{first}\t{other}\t{second}")
        (folder / "pairs.txt").write_text("\n".join(lines) + "\n")
