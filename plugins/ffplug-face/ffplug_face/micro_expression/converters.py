"""CASME II, SMIC, SAMM and CAS(ME)^3 as they come, to one manifest.

Sheets and folders are read as published; corrections lie in ``repairs.yaml`` beside this file. What cannot be used is
left out and listed with its reason. The sets need licences of their own, and none of their pictures is copied.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ffplug.errors import DataError, PluginError
from ffplug_face.micro_expression.manifest import Clip, count, frames_in

REPAIRS = Path(__file__).with_name("repairs.yaml")

_NEGATIVE, _POSITIVE, _SURPRISE = range(3)
LABELS: dict[str, dict[str, int]] = {
    "casme2": {
        "disgust": _NEGATIVE,
        "repression": _NEGATIVE,
        "happiness": _POSITIVE,
        "surprise": _SURPRISE,
    },
    "samm": {
        **dict.fromkeys(("anger", "contempt", "disgust", "fear", "sadness"), _NEGATIVE),
        "happiness": _POSITIVE,
        "surprise": _SURPRISE,
    },
    "smic": {"negative": _NEGATIVE, "positive": _POSITIVE, "surprise": _SURPRISE},
    "casme3": {
        **dict.fromkeys(("anger", "disgust", "fear", "sad", "sadness"), _NEGATIVE),
        **dict.fromkeys(("happy", "happiness"), _POSITIVE),
        "surprise": _SURPRISE,
    },
}
"""Class of each emotion in the three-class protocol of MEGC 2019; others are left out."""

COMPOSITE = {
    "all": {"subjects": 68, "negative": 250, "positive": 109, "surprise": 83, "clips": 442},
    "casme2": {"subjects": 24, "negative": 88, "positive": 32, "surprise": 25, "clips": 145},
    "samm": {"subjects": 28, "negative": 92, "positive": 26, "surprise": 15, "clips": 133},
    "smic": {"subjects": 16, "negative": 70, "positive": 51, "surprise": 43, "clips": 164},
}
"""Subjects and clips of the MEGC 2019 composite."""

FPS = {"casme2": 200.0, "samm": 200.0, "smic": 100.0, "casme3": 30.0}

_SHEET_COLUMNS = {
    "casme2": ("subject", "filename", "onsetframe", "apexframe", "offsetframe", "estimatedemotion"),
    "samm": ("subject", "filename", "onsetframe", "apexframe", "offsetframe", "estimatedemotion"),
    "casme3": ("subject", "filename", "onset", "apex", "offset", "emotion"),
}


@dataclasses.dataclass
class Conversion:
    """What a converter found.

    Attributes:
        clips: the usable ones.
        left_out: reason by clip.
        notes: what was repaired or assumed, by clip.
    """

    clips: list[Clip] = dataclasses.field(default_factory=list)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: dict[str, str] = dataclasses.field(default_factory=dict)


def convert(
    dataset: str,
    root: str | os.PathLike[str],
    relative_to: str | os.PathLike[str],
    sheet: str | os.PathLike[str] | None = None,
) -> Conversion:
    """Find the clips of a data set.

    Args:
        dataset: ``casme2``, ``smic``, ``samm`` or ``casme3``.
        root: its folder of frames: raw or cropped.
        relative_to: folder that the clips' paths start from.
        sheet: its code sheet, ``.xlsx`` or ``.csv``; SMIC has none.

    Raises:
        DataError: no such data set, or the folder or sheet is not what was expected.
        PluginError: an ``.xlsx`` file needs openpyxl.
    """
    root = Path(root)
    if dataset not in LABELS:
        raise DataError(f"no converter for {dataset!r}: expected one of {', '.join(sorted(LABELS))}")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder of frames")
    if dataset == "smic":
        found = _smic(root, Path(relative_to))
    elif sheet is None:
        raise DataError(f"{dataset} needs its code sheet (.xlsx or .csv): --sheet FILE")
    else:
        found = _from_sheet(dataset, root, Path(relative_to), Path(sheet))
    if not found.clips:
        reasons = "; ".join(
            f"{reason} ({number})" for reason, number in Counter(found.left_out.values()).most_common(3)
        )
        raise DataError(f"{root}: no usable clip of {dataset} there: {reasons or 'the folder holds none'}")
    return found


def normal_subject(dataset: str, text: Any) -> str:
    """A subject's id in one form: ``sub01``, ``s01``, ``006``, ``spNO.1`` whatever the padding.

    Raises:
        DataError: there is no number in it.
    """
    found = re.search(r"\d+", str(text))
    if found is None:
        raise DataError(f"{dataset}: the subject {text!r} has no number")
    number = int(found[0])
    return {"casme2": f"sub{number:02}", "smic": f"s{number:02}", "samm": f"{number:03}", "casme3": f"spNO.{number}"}[
        dataset
    ]


def differences(clips: Sequence[Clip]) -> list[str]:
    """How the counts of a manifest differ from the published composite's, one line for each data set that differs."""
    lines = []
    for name, found in count(clips).items():
        expected = COMPOSITE.get(name)
        if expected is not None and found != expected and (name != "all" or set(count(clips)) >= set(COMPOSITE)):
            lines.append(f"{name}: " + ", ".join(f"{found[k]} {k} (composite {expected[k]})" for k in expected))
    return lines


def _smic(root: Path, relative_to: Path) -> Conversion:
    found = Conversion()
    folders = [
        path
        for path in sorted(root.rglob("*"))
        if path.is_dir() and path.parent.name.lower() in LABELS["smic"] and path.parent.parent.name.lower() == "micro"
    ]
    for folder in folders:
        emotion = folder.parent.name.lower()
        subject = normal_subject("smic", folder.parent.parent.parent.name)
        name = f"{subject}/{folder.name}"
        frames = [*frames_in(folder)]
        if len(frames) < 2:
            found.left_out[name] = "fewer than two frames"
            continue
        onset, offset = frames[0], frames[-1]
        apex = onset + (offset - onset) // 2
        _add(found, "smic", subject, folder.name, emotion, (onset, apex, offset), folder, relative_to)
    return found


def _from_sheet(dataset: str, root: Path, relative_to: Path, sheet: Path) -> Conversion:
    repairs = yaml.safe_load(REPAIRS.read_text(encoding="utf-8")).get(dataset, {})
    found = Conversion()
    seen: Counter[tuple[str, str]] = Counter()
    for index, (subject, file, *numbers, emotion) in enumerate(read_sheet(sheet, _SHEET_COLUMNS[dataset])):
        subject = normal_subject(dataset, subject)
        seen[subject, str(file)] += 1
        repeat = seen[subject, str(file)]
        clip = str(file) if repeat == 1 else f"{file}_{repeat}"
        name = f"{subject}/{clip}"
        emotion = str(emotion).strip().lower()
        if emotion not in LABELS[dataset]:
            found.left_out[name] = f"emotion {emotion!r} is none of the three classes"
            continue
        if name in repairs.get("left_out", {}):
            found.left_out[name] = repairs["left_out"][name]
            continue
        values = dict(zip(("onset", "apex", "offset"), map(_number, numbers), strict=True))
        for key, value in repairs.get("rows", {}).get(index, {}).items():
            if not _ordered(values):
                found.notes[name] = f"{key} {values[key]} of the sheet replaced by {value}"
                values[key] = value
        if values["apex"] is None and None not in (values["onset"], values["offset"]):
            values["apex"] = values["onset"] + (values["offset"] - values["onset"]) // 2
            found.notes[name] = "no apex in the sheet: the middle frame is taken"
        if not _ordered(values):
            order = ", ".join(f"{key} {value}" for key, value in values.items())
            found.left_out[name] = f"{order}: expected onset <= apex <= offset"
            continue
        folder = _folder(root, [subject, str(file)], "color" if dataset == "casme3" else None)
        if folder is None:
            found.left_out[name] = f"no folder {subject}/{file} of frames"
            continue
        _add(found, dataset, subject, clip, emotion, tuple(values.values()), folder, relative_to)
    return found


def _number(value: Any) -> int | None:
    """A frame number of a sheet; blanks and ``/`` are None."""
    try:
        return int(float(str(value).strip()))
    except ValueError:
        return None


def _ordered(values: Mapping[str, int | None]) -> bool:
    numbers = [*values.values()]
    return None not in numbers and numbers == sorted(numbers)


def _folder(root: Path, parts: Sequence[str], inner: str | None) -> Path | None:
    """The folder of a clip: below the root, or below one of the root's folders."""
    names = [*parts, *([inner] if inner else [])]
    places = [place for place in (root, *sorted(root.iterdir())) if place.joinpath(*names).is_dir()]
    if len(places) > 1:
        raise DataError(
            f"{root}: both {places[0].name} and {places[1].name} hold {'/'.join(parts)}: name one of them as the root"
        )
    return places[0].joinpath(*names) if places else None


def _add(
    found: Conversion,
    dataset: str,
    subject: str,
    clip: str,
    emotion: str,
    numbers: tuple[int, int, int],
    folder: Path,
    relative_to: Path,
) -> None:
    """Add a clip if its frames are there."""
    frames = frames_in(folder)
    onset, apex, offset = numbers
    missing = next((number for number in (onset, apex) if number not in frames), None)
    if missing is not None:
        found.left_out[f"{subject}/{clip}"] = f"frame {missing} is missing in {folder}"
        return
    paths = [Path(os.path.relpath(frames[number], relative_to)).as_posix() for number in (onset, apex)]
    label = LABELS[dataset][emotion]
    found.clips.append(Clip(dataset, subject, clip, label, emotion, onset, apex, offset, *paths, FPS[dataset]))


def read_sheet(path: Path, columns: Sequence[str]) -> Iterator[list[Any]]:
    """Rows of a code sheet below the line that names the columns, whatever stands above it.

    Args:
        path: ``.xlsx`` (its first sheet) or ``.csv``.
        columns: wanted ones, lower case without blanks and signs.

    Yields:
        The wanted values of each row whose first one is not empty.

    Raises:
        DataError: no such file, damaged, or without these columns.
        PluginError: openpyxl is not installed.
    """
    places: list[int] | None = None
    for row in _rows(path):
        names = [re.sub(r"[^a-z]", "", str(cell).lower()) for cell in row]
        if places is None:
            if set(columns) <= set(names):
                places = [names.index(column) for column in columns]
            continue
        values = [row[place] if place < len(row) else None for place in places]
        if values[0] not in (None, ""):
            yield values
    if places is None:
        raise DataError(f"{path}: no line with the columns {', '.join(columns)}")


def _rows(path: Path) -> Iterator[Sequence[Any]]:
    if not path.is_file():
        raise DataError(f"{path}: no such code sheet")
    if path.suffix.lower() == ".csv":
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: expected UTF-8 text: {error}") from error
        yield from csv.reader(io.StringIO(text))
        return
    if path.suffix.lower() != ".xlsx":
        raise DataError(f"{path}: expected .xlsx or .csv")
    try:
        import openpyxl
    except ImportError:
        raise PluginError(f"{path}: reading .xlsx needs openpyxl: pip install 'ffplug-face[sheets]'") from None
    import zipfile

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, openpyxl.utils.exceptions.InvalidFileException) as error:
        raise DataError(f"{path}: damaged or no .xlsx file: {error}") from error
    try:
        yield from book.worksheets[0].iter_rows(values_only=True)
    finally:
        book.close()
