"""AffectNet: single pictures with a face box, an expression, valence and arousal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ffplug.datasets.base import Problem, choose
from ffplug.datasets.layouts import join
from ffplug.errors import DataError
from ffplug_fpnmaa.datasets.annotations import number, read_csv
from ffplug_fpnmaa.datasets.base import AffectDataset
from ffplug_fpnmaa.registry import DATASETS

LISTS = "Manually_Annotated_file_lists"
PICTURES = "Manually_Annotated_Images"
CLASSES = (0, 4, 5, 6, 3, 2, 1)
"""AffectNet's neutral, happy, sad, surprise, fear, disgust, anger as Aff-Wild2's classes."""

COLUMNS = ("subDirectory_filePath", "expression", "valence", "arousal")
BOX = ("face_x", "face_y", "face_width", "face_height")
SPLITS = {"train": ("training",), "validation": ("validation",), "all": ("training", "validation")}


@DATASETS.register_module()
class AffectNetDataset(AffectDataset):
    """AffectNet's manually annotated pictures (Mollahosseini et al., 2017), in the classes of Aff-Wild2.

    ``Manually_Annotated_file_lists/{training,validation}.csv`` and ``Manually_Annotated_Images/``. Contempt and what is
    no face have no class here; valence or arousal outside of -1..1 (-2: none) are not known.

    Args:
        data_root: the folder of both.
        split: ``train``, ``validation``, or ``all``: the public code trains on both.
        crop: cut the face's box out; the public code does not.
        **kwargs: see :class:`AffectDataset`; action units there are none.

    Example:
        dict(type="ffplug_fpnmaa.AffectNetDataset", data_root="data/AffectNet")
    """

    layout = "affectnet"
    title = "AffectNet"

    def __init__(self, data_root: str, split: str = "train", crop: bool = True, **kwargs: Any) -> None:
        self.split, self.crop = choose("split", split, tuple(SPLITS)), crop
        super().__init__(data_root, **kwargs)

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return f"{self.title}/{self.split}"

    def find(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pictures."""
        self.require(LISTS)
        for part in SPLITS[self.split]:
            path = join(self.data_root, LISTS, f"{part}.csv")
            for line, row in read_csv(path, (*COLUMNS, *(BOX if self.crop else ()))):
                try:
                    yield self._entry(path, part, line, row)
                except DataError as error:
                    problems.append(Problem(join(LISTS, f"{part}.csv"), str(error)))

    def _entry(self, path: str, part: str, line: int, row: Any) -> dict[str, Any]:
        kind = number(path, line, row, "expression", int)
        if not 0 <= kind <= 10:
            raise DataError(f"{path}, line {line}: expression {kind}, expected 0..10")
        va = [number(path, line, row, column) for column in ("valence", "arousal")]
        box = [number(path, line, row, column) for column in BOX] if self.crop else None
        if box is not None and min(box[2:]) <= 0:
            raise DataError(f"{path}, line {line}: a face box of {box[2]:g}×{box[3]:g} pixels")
        name = row["subDirectory_filePath"].strip()
        return self.face(
            join(PICTURES, name),
            sequence=f"{part}/{name}",
            frame=line - 2,
            sample_id=f"{part}/{line}/{name}",
            box=box,
            va=va if max(map(abs, va)) <= 1 else None,
            expr=CLASSES[kind] if kind < len(CLASSES) else None,
        )
