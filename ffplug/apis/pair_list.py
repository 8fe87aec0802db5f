"""Lists of frame pairs on disk, of any length, read a stretch at a time."""

from __future__ import annotations

import array
import csv
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ffplug.errors import ConfigError, DataError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl")
COLUMNS = ("image1", "image2", "name")


class PairList:
    """A file with a pair of pictures in each row: ``image1,image2`` and, if wanted, ``name``.

    The suffix tells the format: ``.csv``, ``.tsv``, or ``.jsonl`` with ``{"image1": ..., "image2": ..., "name": ...}``
    in each line. A first row with the names of the columns may put them in any order, among others. Paths are relative
    to the list's folder. Names become the results' paths below the output folder, without suffix, with ``/`` between
    folders; pairs without a name are numbered, a thousand to a folder.

    The whole list is read and checked once; then only where each stretch begins is kept in memory.

    Args:
        path: the list.
        chunk: pairs in a stretch.

    Raises:
        ConfigError: another suffix.
        DataError: a row is wrong, a name is unsafe or given twice, or there is no pair.
    """

    def __init__(self, path: str | os.PathLike[str], chunk: int) -> None:
        self.path = Path(path).absolute()
        self.chunk = chunk
        if self.path.suffix.lower() not in SUFFIXES:
            raise ConfigError(f"{path}: a list of pairs ends in one of {' '.join(SUFFIXES)}")
        self.columns: tuple[int, ...] = ()
        self.count = 0
        self.offsets: list[int] = []
        hashes = array.array("Q")
        content = hashlib.sha256()
        with self._open() as file:
            for offset, _, _, name in self._rows(file):
                if self.count % chunk == 0:
                    self.offsets.append(offset)
                check_name(name, f"{self.path}, pair {self.count + 1}")
                hashes.append(_hash(name))
                self.count += 1
            file.seek(0)
            while block := file.read(1 << 20):
                content.update(block)
        self.sha256 = content.hexdigest()
        if not self.count:
            raise DataError(f"{self.path}: holds no pair")
        self._check_unique(np.frombuffer(hashes, np.uint64))

    def read(self, stretch: int) -> Iterator[tuple[Path, Path, str]]:
        """Yield the pictures and the name of each pair of a stretch."""
        with self._open() as file:
            file.seek(self.offsets[stretch])
            first = stretch * self.chunk
            for index, (_, image1, image2, name) in enumerate(self._rows(file, first), start=first):
                if index == first + self.chunk:
                    return
                yield self.path.parent / image1, self.path.parent / image2, name

    def _open(self) -> BinaryIO:
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror})") from error

    def _rows(self, file: BinaryIO, index: int = 0) -> Iterator[tuple[int, str, str, str]]:
        """Yield where each pair's row begins, its pictures and its name; ``index`` counts the pairs before."""
        for offset, row in self._fields(file):
            if offset == 0 and self._is_header(row):
                continue
            yield offset, *self._pair(row, index)
            index += 1

    def _fields(self, file: BinaryIO) -> Iterator[tuple[int, list]]:
        position = file.tell()

        def lines() -> Iterator[str]:
            nonlocal position
            for line in file:
                position += len(line)
                yield line.decode("utf-8-sig")

        delimiter = DELIMITERS.get(self.path.suffix.lower())
        rows = csv.reader(lines(), delimiter=delimiter, strict=True) if delimiter else map(_parse_json, lines())
        while True:
            offset = position  # of the next row, as neither reader looks ahead
            try:
                row = next(rows)
            except StopIteration:
                return
            except (ValueError, csv.Error) as error:
                raise DataError(f"{self.path}: at byte {offset}: {error}") from error
            if row:
                yield offset, row

    def _is_header(self, row: list) -> bool:
        found = [str(field).strip().lower() for field in row]
        if not {"image1", "image2"} <= set(found):
            return False
        self.columns = tuple(found.index(column) for column in COLUMNS if column in found)
        return True

    def _pair(self, row: list, index: int) -> tuple[str, str, str]:
        if self.columns:
            row = [row[column] if column < len(row) else "" for column in self.columns]
        fields = [field.strip() if isinstance(field, str) else "" for field in row]
        if len(fields) not in (2, 3) or not all(fields[:2]):
            raise DataError(f"{self.path}, pair {index + 1}: expected {','.join(COLUMNS[:2])}[,name], found {row}")
        name = fields[2] if len(fields) == 3 else ""
        return fields[0], fields[1], name or f"{index // 1000:06d}/pair_{index:09d}"

    def _check_unique(self, hashes: np.ndarray) -> None:
        """Compare 64-bit hashes, and names only where two are equal, so that a million names need not be kept."""
        values, counts = np.unique(hashes, return_counts=True)
        twice = set(values[counts > 1].tolist())
        if not twice:
            return
        seen: dict[str, int] = {}
        with self._open() as file:
            for index, (_, _, _, name) in enumerate(self._rows(file), start=1):
                if _hash(name) not in twice:
                    continue
                if name in seen:
                    raise DataError(
                        f"{self.path}: pairs {seen[name]} and {index} have the same name {name!r}, so one result would "
                        "overwrite the other"
                    )
                seen[name] = index


def check_name(name: str, where: str) -> None:
    """Refuse a name that would leave the output folder, or hide in it.

    Raises:
        DataError: the name is absolute, goes up, or holds hidden or empty parts, control characters or backslashes.
    """
    safe = name.isprintable() and "\\" not in name and all(part and part[0] != "." for part in name.split("/"))
    if not safe:
        raise DataError(
            f"{where}: {name!r} is no name of a result: expected a path below the output folder, such as clip/000012, "
            "without .., hidden parts, backslashes or control characters"
        )


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _parse_json(line: str) -> list:
    if not line.strip():
        return []
    row = json.loads(line)
    if not isinstance(row, dict) or not {"image1", "image2"} <= row.keys():
        raise ValueError('expected {"image1": ..., "image2": ...} in each line')
    return [row["image1"], row["image2"], row.get("name") or ""]
