"""A list of faces of one's own, in a CSV file; any data set can be written as one."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from ffplug.datasets.base import Problem
from ffplug.datasets.layouts import join
from ffplug.errors import DataError
from ffplug.files import atomic_path
from ffplug_fpnmaa.datasets.annotations import number, read_csv
from ffplug_fpnmaa.datasets.base import AffectDataset
from ffplug_fpnmaa.labels import ACTION_UNITS
from ffplug_fpnmaa.registry import DATASETS

BOX = ("left", "top", "width", "height")
VA = ("valence", "arousal")
UNITS = tuple(f"AU{unit}" for unit in ACTION_UNITS)
COLUMNS = ("sample_id", "path", "sequence", "frame", *BOX, *VA, "expression", *UNITS)


@DATASETS.register_module()
class AffectIndexDataset(AffectDataset):
    """Faces that a CSV file lists.

    Its columns: ``path`` (below ``data_root``), and any of ``sample_id``, ``sequence``, ``frame``, ``left``, ``top``,
    ``width``, ``height`` (the face's box, pixels), ``valence``, ``arousal``, ``expression`` (a class's number) and
    ``AU1`` ... ``AU26`` (0 or 1). An empty field is not known.

    Args:
        data_root: the folder of the pictures.
        index: name of the CSV file below it.
        title: the data set's name.
        **kwargs: see :class:`AffectDataset`.

    Example:
        dict(type="ffplug_fpnmaa.AffectIndexDataset", data_root="data/faces")
    """

    def __init__(self, data_root: str, index: str = "index.csv", title: str = "faces", **kwargs: Any) -> None:
        self.index, self.title = index, title
        super().__init__(data_root, **kwargs)

    @classmethod
    def write_example(cls, folder: str | os.PathLike) -> None:
        """Write a small procedural set with its list to a new folder, for tests and examples."""
        from ffplug_fpnmaa.datasets.affwild2 import AffWild2Dataset

        AffWild2Dataset.write_example(folder)
        write_index(AffWild2Dataset(str(folder)), Path(folder) / "index.csv")

    def _wanted(self) -> str:
        return f"expected rows in {self.index}"

    def find(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the faces, in the order of the list."""
        path, seen = join(self.data_root, self.index), set()
        for line, row in read_csv(path, ["path"]):
            try:
                entry = self._entry(path, line, row)
                if entry["sample_id"] in seen:
                    raise DataError(f"{path}, line {line}: sample {entry['sample_id']} is listed twice")
            except DataError as error:
                problems.append(Problem(self.index, str(error)))
                continue
            seen.add(entry["sample_id"])
            yield entry

    def _entry(self, path: str, line: int, row: Mapping[str, str]) -> dict[str, Any]:
        def group(names: tuple[str, ...], low: float, high: float, kind: type = float) -> list[float] | None:
            there = [name for name in names if row.get(name, "").strip()]
            if not there:
                return None
            if len(there) < len(names):
                missing = next(name for name in names if name not in there)
                raise DataError(f"{path}, line {line}: {there[0]} without {missing}; leave all of them empty, or none")
            values = [number(path, line, row, name, kind) for name in names]
            for name, value in zip(names, values, strict=True):
                if not low <= value <= high:
                    raise DataError(f"{path}, line {line}: {name} is {value:g}, expected {low:g}..{high:g}")
            return values

        expr = group(("expression",), 0, self.classes - 1, int)
        frame = group(("frame",), 0, 2**53, int)
        box = group(BOX, -1e6, 1e6)
        if box is not None and min(box[2:]) <= 0:
            raise DataError(f"{path}, line {line}: a face box of {box[2]:g}×{box[3]:g} pixels")
        return self.face(
            row["path"],
            sequence=row.get("sequence") or row["path"],
            frame=line - 2 if frame is None else frame[0],
            sample_id=row.get("sample_id") or row["path"],
            box=box,
            va=group(VA, -1, 1),
            expr=None if expr is None else expr[0],
            au=group(UNITS, 0, 1, int),
        )


def write_index(dataset: AffectDataset, path: str | os.PathLike) -> int:
    """Write a data set as a list for :class:`AffectIndexDataset`, with paths below its ``data_root``.

    Args:
        dataset: what its arguments choose, teachers' labels left out.
        path: the CSV file.

    Returns:
        The number of faces.
    """
    dataset.full_init()
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for place in range(len(dataset)):
            entry = BaseDataset.get_data_info(dataset, place)
            row = {"path": entry["image_path"], "expression": entry["expr"]}
            row |= {name: entry[name] for name in ("sample_id", "sequence", "frame")}
            for names, key in ((BOX, "box"), (VA, "va"), (UNITS, "au")):
                if entry[key] is not None:
                    row |= {name: f"{value:g}" for name, value in zip(names, entry[key], strict=True)}
            writer.writerow(row)
    return len(dataset)
