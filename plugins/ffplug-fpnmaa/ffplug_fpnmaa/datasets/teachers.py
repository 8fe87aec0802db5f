"""What teachers say of each sample, in CSV files that are joined to the samples by their names.

``va.csv`` has the columns sample_id, valence, arousal, and, of a teacher that tells them in bins, valence_0 ...,
arousal_0 ... with a probability for each bin; ``expr.csv`` sample_id and a probability for each class;
``au.csv`` sample_id and a probability for each unit.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ffplug.errors import DataError
from ffplug.files import atomic_path
from ffplug_fpnmaa.datasets.annotations import number, read_csv
from ffplug_fpnmaa.labels import ACTION_UNITS, class_names

VA = ("valence", "arousal")
FILES = {"va": "va.csv", "expr": "expr.csv", "au": "au.csv"}


def columns(task: str, count: int) -> list[str]:
    """Names of a task's columns."""
    if task == "va":
        bins = range((count - 2) // 2)
        return [*VA, *(f"{name}_{place}" for name in VA for place in bins)]
    if task == "expr":
        return list(class_names(count))
    return [f"AU{unit}" for unit in (ACTION_UNITS if count == len(ACTION_UNITS) else range(count))]


def write_teacher_labels(path: Path, task: str, rows: Iterable[tuple[str, Sequence[float]]]) -> int:
    """Write what a teacher says; returns the number of samples. The file appears when it is whole."""
    count = 0
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for name, values in rows:
            if count == 0:
                writer.writerow(["sample_id", *columns(task, len(values))])
            writer.writerow([name, *(f"{float(value):.6g}" for value in values)])
            count += 1
    return count


class TeacherLabels:
    """A file of a teacher's labels in memory.

    Args:
        path: the file.
        task: whose labels they are.

    Raises:
        DataError: a column is missing, a number out of range, a sample listed twice.
    """

    def __init__(self, path: str, task: str) -> None:
        self.path, self.task = path, task
        needed = ["sample_id", *VA] if task == "va" else ["sample_id"]
        self.rows: dict[str, int] = {}
        values = []
        low = -1.0 if task == "va" else 0.0
        for line, row in read_csv(path, needed):
            name = row["sample_id"]
            if name in self.rows:
                raise DataError(f"{path}, line {line}: {name} is listed twice")
            names = [column for column in row if column != "sample_id"]
            if task == "va" and names != columns("va", len(names)):
                raise DataError(f"{path}, line 1: expected valence, arousal, and valence_0 ..., arousal_0 ... of bins")
            told = [number(path, line, row, column) for column in names]
            for column, value in zip(names, told, strict=True):
                least = low if column in VA else 0.0
                if not least <= value <= 1:
                    raise DataError(f"{path}, line {line}: {column} is {value:g}, not within {least:g}..1")
            self.rows[name] = len(values)
            values.append(told)
        if not values:
            raise DataError(f"{path}: holds no samples")
        self.values = np.array(values, np.float32)

    def get(self, name: str) -> np.ndarray | None:
        """What is said of a sample, or None."""
        row = self.rows.get(name)
        return None if row is None else self.values[row]


def read_teachers(files: Mapping[str, str]) -> dict[str, TeacherLabels]:
    """Read files of labels by task."""
    return {task: TeacherLabels(path, task) for task, path in files.items()}
