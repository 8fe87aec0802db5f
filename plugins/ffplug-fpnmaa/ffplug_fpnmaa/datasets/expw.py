"""ExpW: pictures of scenes with several faces, each with a box and an expression."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from ffplug.datasets.base import Problem
from ffplug.datasets.layouts import explain_root, join
from ffplug.errors import DataError
from ffplug_fpnmaa.datasets.annotations import read_lines
from ffplug_fpnmaa.datasets.base import AffectDataset
from ffplug_fpnmaa.registry import DATASETS

LISTS = ("label.lst", "label/label.lst")
PICTURES = ("image/origin", "origin", "image")
CLASSES = (1, 2, 3, 4, 5, 6, 0)
"""ExpW's angry, disgust, fear, happy, sad, surprise, neutral as Aff-Wild2's classes."""


@DATASETS.register_module()
class ExpWDataset(AffectDataset):
    """Faces of ExpW, Expression in-the-Wild (Zhang et al., 2018), in the classes of Aff-Wild2.

    ``label.lst`` (or ``label/label.lst``) with ``name face_id top left right bottom confidence label`` a line, and the
    pictures in ``image/origin/``, ``origin/`` or ``image/``. A picture may hold several faces: a sample is named by
    picture and face.

    Args:
        data_root: the folder of the list.
        confidence: least confidence of a face's box.
        **kwargs: see :class:`AffectDataset`; there are expressions alone.

    Example:
        dict(type="ffplug_fpnmaa.ExpWDataset", data_root="data/ExpW")
    """

    layout = "expw"
    title = "ExpW"

    def __init__(self, data_root: str, confidence: float = 0.0, **kwargs: Any) -> None:
        self.confidence = confidence
        super().__init__(data_root, **kwargs)

    def find(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the faces."""
        files = {name: set(self.files(os.path.dirname(name))) for name in LISTS}
        listed = next((name for name in LISTS if os.path.basename(name) in files[name]), None)
        if listed is None:
            raise DataError(explain_root(self.data_root, self.layout, " or ".join(LISTS)))
        pictures = self.require(*PICTURES)
        path, seen = join(self.data_root, listed), set()
        for line, text in enumerate(read_lines(path), start=1):
            if not text.strip():
                continue
            try:
                entry = self._entry(path, line, text, pictures)
            except DataError as error:
                problems.append(Problem(listed, str(error)))
                continue
            if entry is None:
                self.skip("below the least confidence")
                continue
            if entry["sample_id"] in seen:
                problems.append(Problem(listed, f"line {line}: face {entry['sample_id']} is listed twice"))
                continue
            seen.add(entry["sample_id"])
            yield entry

    def _entry(self, path: str, line: int, text: str, pictures: str) -> dict[str, Any] | None:
        parts = text.split()
        if len(parts) != 8:
            raise DataError(f"{path}, line {line}: {len(parts)} fields, expected 8: name, face, box, score, label")
        name = parts[0]
        try:
            face, top, left, right, bottom, kind = (int(parts[place]) for place in (1, 2, 3, 4, 5, 7))
            confidence = float(parts[6])
        except ValueError:
            raise DataError(f"{path}, line {line}: not numbers: {text[:80]!r}") from None
        if not 0 <= kind < len(CLASSES):
            raise DataError(f"{path}, line {line}: label {kind}, expected 0..6")
        if right <= left or bottom <= top:
            raise DataError(f"{path}, line {line}: a face box from {left}, {top} to {right}, {bottom}")
        if confidence < self.confidence:
            return None
        return self.face(
            join(pictures, name),
            sequence=name,
            frame=line - 1,
            sample_id=f"{PurePosixPath(name).stem}_{face}",
            box=(left, top, right - left, bottom - top),
            expr=CLASSES[kind],
        )
