"""Aff-Wild2's annotation files, and files of teachers' labels, read strictly: errors name the file and the line.

Line k after the header (k from 0) belongs to frame k + 1. Valence and arousal are -5, expressions and action units -1,
where they are not known; past this module that is NaN (or class -1), and a frame with one unit unknown has none.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ffplug.datasets.formats import read_bytes
from ffplug.errors import DataError
from ffplug_fpnmaa.labels import ACTION_UNITS, EXPRESSIONS

HEADERS = {
    "va": ("valence", "arousal"),
    "expr": ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise"),
    "au": tuple(f"AU{unit}" for unit in ACTION_UNITS),
}
"""First lines of the second release's files, comma separated."""

FIRST_UNITS = ("au1", "au2", "au4", "au6", "au12", "au15", "au20", "au25")
"""The units of the first release."""

UNKNOWN = {"va": -5, "expr": -1, "au": -1}


def read_lines(path: str) -> list[str]:
    """The lines of a text file.

    Raises:
        DataError: it is missing, empty or no text.
    """
    try:
        return read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from None


def read_annotations(path: str, task: str, classes: int = 7) -> np.ndarray:
    """Read the labels of a video.

    Args:
        path: the file.
        task: ``va``, ``expr`` or ``au``.
        classes: number of expressions: 7, or 8 for later releases, which have ``Other``.

    Returns:
        ``va``: N×2 float32, NaN where unknown; ``expr``: N int16, -1 where unknown; ``au``: N×12 float32, NaN where one
        of the units is unknown.

    Raises:
        DataError: the file is of another task or release, or a line is wrong.
    """
    lines = read_lines(path)
    _check_header(path, lines[0] if lines else "", task, classes)
    while len(lines) > 1 and not lines[-1].strip():
        lines.pop()
    columns = {"va": 2, "expr": 1, "au": len(ACTION_UNITS)}[task]
    body = lines[1:]
    if any(not line.strip() for line in body):
        empty = next(number for number, line in enumerate(body, start=2) if not line.strip())
        raise DataError(f"{path}, line {empty}: empty; each line is a frame, so none may be left out")
    table = np.array(list(_rows(path, body, columns)), np.float64).reshape(-1, columns)
    return _decode(path, task, table, classes)


def _rows(path: str, body: Sequence[str], columns: int) -> Iterator[list[float]]:
    for number, line in enumerate(body, start=2):
        parts = line.split(",")
        if len(parts) != columns:
            raise DataError(f"{path}, line {number}: {len(parts)} columns, expected {columns}: {line[:60]!r}")
        try:
            yield [float(part) for part in parts]
        except ValueError:
            raise DataError(f"{path}, line {number}: not numbers: {line[:60]!r}") from None


def _decode(path: str, task: str, table: np.ndarray, classes: int) -> np.ndarray:
    unknown = table == UNKNOWN[task]
    if task == "va":
        right, expected = np.abs(table) <= 1, "-1..1, or -5 where unknown"
    elif task == "expr":
        right, expected = np.isin(table, range(classes)), f"a class 0..{classes - 1}, or -1 where unknown"
    else:
        right, expected = np.isin(table, (0, 1)), "0 or 1, or -1 where unknown"
    wrong = ~(right | unknown)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        found = f"{table[row, column]:g}"
        advice = " (class 7 is `other` of later releases: set classes=8)" if task == "expr" and found == "7" else ""
        raise DataError(f"{path}, line {row + 2}: {found}, expected {expected}{advice}")
    if task == "expr":
        return table[:, 0].astype(np.int16)
    table[unknown.any(axis=1)] = np.nan
    return table.astype(np.float32)


def _check_header(path: str, line: str, task: str, classes: int) -> None:
    found = [name.strip() for name in line.split(",")]
    lower = [name.lower() for name in found]
    expected = ",".join(HEADERS[task])
    if lower == expected.lower().split(","):
        return
    eight = [*EXPRESSIONS[:7], "other"]
    if task == "expr" and lower == eight:
        if classes >= 8:
            return
        raise DataError(
            f"{path}, line 1: eight expressions with Other, as in releases after the second (ABAW3 on): set classes=8, "
            "and tasks.expr=8 in the head"
        )
    if len(found) > 13 or {"valence", "expression"} <= set(lower):
        reason = "labels of several tasks in one file, as in the multi-task challenges of ABAW3 and later"
    elif lower == list(FIRST_UNITS):
        reason = "the eight action units of the first release (ABAW1)"
    else:
        other = next((t for t, names in HEADERS.items() if lower == [name.lower() for name in names]), None)
        reason = f"a file of the task {other}" if other else f"the first line is {line[:60]!r}"
    raise DataError(f"{path}, line 1: {reason}; expected the second release's {expected}")


def read_frame_counts(path: str) -> dict[str, int]:
    """Read a list of test videos: ``<video> <number of frames>`` a line.

    Raises:
        DataError: a line is something else.
    """
    counts: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        name, _, count = line.strip().rpartition(" ")
        if not name or not count.isdigit() or int(count) < 1:
            raise DataError(f"{path}, line {number}: {line[:60]!r}, expected a video's name and its number of frames")
        if name in counts:
            raise DataError(f"{path}, line {number}: video {name} is listed twice")
        counts[name] = int(count)
    if not counts:
        raise DataError(f"{path}: lists no video")
    return counts


def read_csv(path: str, needed: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the rows of a CSV file with the numbers of their lines.

    Args:
        path: the file, with a header.
        needed: columns without which it is another file.

    Raises:
        DataError: a column is missing, or a row has more or fewer fields than the header.
    """
    reader = csv.reader(io.StringIO("\n".join(read_lines(path))))
    header = [name.strip() for name in next(reader, [])]
    missing = [name for name in needed if name not in header]
    if missing:
        raise DataError(f"{path}, line 1: no column {', '.join(missing)}; found {', '.join(header)[:200]}")
    for row in reader:
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(f"{path}, line {reader.line_num}: {len(row)} fields, the header has {len(header)}")
        yield reader.line_num, dict(zip(header, row, strict=True))


def number(path: str, line: int, row: Mapping[str, str], column: str, kind: type = float) -> float:
    """A number of a CSV row.

    Raises:
        DataError: it is none, or not a finite one.
    """
    try:
        value = float(row[column])
        if not math.isfinite(value) or (kind is int and value != int(value)):
            raise ValueError
    except (ValueError, OverflowError):
        wanted = "a whole number" if kind is int else "a number"
        raise DataError(f"{path}, line {line}: {column} is {row[column]!r}, expected {wanted}") from None
    return kind(value)
