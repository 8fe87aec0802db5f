"""The one list of clips that everything reads: a CSV file with a line for each micro-expression."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ffplug.datasets.formats import write_bytes
from ffplug.errors import DataError, did_you_mean

CLASSES = ("negative", "positive", "surprise")
"""The three classes of the composite, by label."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """One micro-expression; its fields are the manifest's columns.

    Attributes:
        dataset: such as ``casme2``.
        subject: the person, unique within the data set.
        clip: name, unique within the subject.
        label: class, 0 negative, 1 positive, 2 surprise.
        emotion: as the data set calls it.
        onset: number of the neutral frame before the movement.
        apex: number of the frame where it is strongest.
        offset: number of the last frame.
        onset_path: file of the onset frame, relative to the manifest's root.
        apex_path: file of the apex frame.
        fps: frames per second.
    """

    dataset: str
    subject: str
    clip: str
    label: int
    emotion: str
    onset: int
    apex: int
    offset: int
    onset_path: str
    apex_path: str
    fps: float

    @property
    def key(self) -> str:
        """Name that is unique in a manifest: ``dataset/subject/clip``."""
        return f"{self.dataset}/{self.subject}/{self.clip}"

    @property
    def person(self) -> str:
        """``dataset/subject``: the same id in two data sets is two people."""
        return f"{self.dataset}/{self.subject}"


COLUMNS = tuple(field.name for field in dataclasses.fields(Clip))


def read_manifest(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    classes: int = len(CLASSES),
    check_files: bool = True,
) -> list[Clip]:
    """Read and check a manifest.

    Args:
        path: the CSV file, UTF-8.
        root: folder that frame paths start from; None for the manifest's own.
        classes: number of classes.
        check_files: whether every frame must be there.

    Returns:
        The clips in the order of the file.

    Raises:
        DataError: anything is wrong; names file, line and what was expected.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such manifest; `ffplug micro convert` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no readable UTF-8 file: {error}") from error
    rows = csv.reader(io.StringIO(text))
    header = next(rows, [])
    for column in COLUMNS:
        if column not in header:
            raise DataError(f"{path}, line 1: no column {column!r}{did_you_mean(column, header)}")
    clips: list[Clip] = []
    lines: dict[tuple[str, ...], int] = {}
    for row in rows:
        line = rows.line_num
        if not any(cell.strip() for cell in row):
            continue
        where = f"{path}, line {line}"
        if len(row) != len(header):
            raise DataError(f"{where}: {len(row)} values for {len(header)} columns")
        clip = _parse(dict(zip(header, (cell.strip() for cell in row), strict=True)), where, classes)
        for key, what in (((clip.key,), "clip"), ((clip.onset_path, clip.apex_path), "pair of frames")):
            if key in lines:
                raise DataError(f"{where}: the {what} {', '.join(key)} stands in line {lines[key]} already")
            lines[key] = line
        if check_files:
            for name in (clip.onset_path, clip.apex_path):
                if not (root / name).is_file():
                    raise DataError(f"{where}: {root / name} is missing, a frame of the clip {clip.key}")
        clips.append(clip)
    if not clips:
        raise DataError(f"{path}: the manifest lists no clip")
    return clips


def _parse(row: dict[str, str], where: str, classes: int) -> Clip:
    for column in COLUMNS:
        if not row[column] and column != "emotion":
            raise DataError(f"{where}: {column} is empty")
    numbers: dict[str, int | float] = {}
    for column in ("label", "onset", "apex", "offset", "fps"):
        kind = float if column == "fps" else int
        try:
            numbers[column] = kind(row[column])
        except ValueError:
            raise DataError(f"{where}: {column} is {row[column]!r}, expected a number") from None
    if not 0 <= numbers["label"] < classes:
        raise DataError(f"{where}: label is {numbers['label']}, expected 0 to {classes - 1}")
    if not numbers["fps"] > 0:
        raise DataError(f"{where}: fps is {row['fps']}, expected a positive number")
    if not numbers["onset"] <= numbers["apex"] <= numbers["offset"]:
        order = f"onset {row['onset']}, apex {row['apex']}, offset {row['offset']}"
        raise DataError(f"{where}: {order}: expected onset <= apex <= offset")
    for column in ("dataset", "subject", "clip"):
        if re.search(r"[/\\\x00-\x1f]", row[column]) or row[column] in (".", ".."):
            raise DataError(
                f"{where}: {column} is {row[column]!r}, expected a name without slash, that can be a file's"
            )
    return Clip(**{column: numbers.get(column, row[column]) for column in COLUMNS})


def write_manifest(path: str | os.PathLike[str], clips: Iterable[Clip]) -> None:
    """Write a manifest, as a whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(dataclasses.astuple(clip) for clip in clips)
    write_bytes(path, text.getvalue().encode())


def frame_number(path: Path) -> int | None:
    """The last number in a picture's name, which is the frame's: 46 of ``reg_img46.jpg``; None without one."""
    found = re.findall(r"\d+", path.stem)
    return int(found[-1]) if found else None


IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}


def frames_in(folder: Path) -> dict[int, Path]:
    """The pictures of a folder by frame number, in order.

    Raises:
        DataError: two pictures have the same number.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        number = frame_number(path)
        if number is None or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if number in found:
            raise DataError(f"{folder}: {found[number].name} and {path.name} are both frame {number}")
        found[number] = path
    return dict(sorted(found.items()))


def count(clips: Sequence[Clip]) -> dict[str, dict[str, int]]:
    """Subjects and clips of each class, by data set and for ``all``."""
    groups = {"all": clips}
    groups |= {name: [clip for clip in clips if clip.dataset == name] for name in sorted({c.dataset for c in clips})}
    return {
        name: {
            "subjects": len({clip.person for clip in group}),
            **{label: sum(clip.label == index for clip in group) for index, label in enumerate(CLASSES)},
            "clips": len(group),
        }
        for name, group in groups.items()
    }
