"""What an inferencer takes: pictures, lists, folders, globs and videos, all as sequences of frames."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ffplug.apis.video import VIDEO_SUFFIXES, VideoFrame, VideoFrames
from ffplug.datasets.formats import IMAGE_SUFFIXES, read_image
from ffplug.errors import DamagedFrameError, DataError

PathLike: TypeAlias = str | os.PathLike
Frame: TypeAlias = PathLike | np.ndarray | Tensor | VideoFrame
OnError: TypeAlias = Callable[[str, DataError], None]
"""Is told the name of a pair that is lost, and why."""


@dataclass(frozen=True)
class FramePair:
    """Two successive frames.

    Attributes:
        image1: H×W×3, RGB in 0..255, uint8 or float32.
        image2: as ``image1``, of the same size.
        name: of the pair within all inputs, with ``/`` between folders; fit for a file name without suffix.
        sequence: name of the sequence that it belongs to.
        index: position in that sequence, from 0.
        paths: the files of the frames, None for frames that came from memory or a video.
        inputs: further inputs of the pair by name, see :class:`~ffplug.apis.video.VideoFrame`.
    """

    image1: np.ndarray
    image2: np.ndarray
    name: str
    sequence: str
    index: int
    paths: tuple[str | None, str | None]
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class FrameSequence:
    """Frames in order of time.

    Attributes:
        name: of the sequence, empty for the only one.
        frames: the frames, which are loaded one by one.
        count: number of frames, or None where it is not known before the end.
        names: of the frames, or None to number them.
        first: position of the first frame, in a part of a sequence.
        whole: whether this is no part, so that a single frame is an error.
    """

    name: str
    frames: Iterable[Frame]
    count: int | None
    names: tuple[str, ...] | None = None
    first: int = 0
    whole: bool = True

    def pair_name(self, index: int) -> str:
        """Return the name of the pair whose first frame is ``index``."""
        name = self.names[index] if self.names else f"frame_{self.first + index:06d}"
        return f"{self.name}/{name}" if self.name else name

    def part(self, start: int, stop: int, frames: Iterable[Frame]) -> FrameSequence:
        """Return the pairs from ``start`` to before ``stop``, whose frames are given: one more than there are pairs."""
        names = self.names[start : stop + 1] if self.names else None
        return replace(self, frames=frames, count=stop + 1 - start, names=names, first=start, whole=False)

    def pairs(self, on_error: OnError | None = None) -> Iterator[FramePair]:
        """Yield each frame with its successor; every frame is read once, and two are in memory at a time.

        Args:
            on_error: is told each pair that is lost, and the others follow; None raises the error instead.

        Raises:
            DataError: a frame is unreadable, of another size than its neighbour, or alone.
        """

        def lose(place: int, error: DataError) -> None:
            if on_error is None:
                raise error
            on_error(self.pair_name(place), error)

        previous: tuple[np.ndarray, str | None] | None = None
        frames, index = iter(self.frames), -1
        while True:
            try:
                frame = next(frames)
            except StopIteration:
                break
            except DataError as error:  # a video ends early
                lose(max(index, 0), error)
                return
            index += 1
            path = os.fspath(frame) if isinstance(frame, str | os.PathLike) else None
            try:
                image = to_image(frame, f"frame {self.first + index} of {self.name or 'the input'}")
            except DataError as error:
                if previous is not None:
                    lose(index - 1, error)
                if self.count is None or index + 1 < self.count:
                    lose(index, error)
                previous = None
                continue
            if previous is not None:
                try:
                    self._check_sizes(previous, (image, path), index)
                except DataError as error:
                    lose(index - 1, error)
                else:
                    name = self.pair_name(index - 1)
                    place, inputs = self.first + index - 1, frame.inputs if isinstance(frame, VideoFrame) else {}
                    yield FramePair(previous[0], image, name, self.name, place, (previous[1], path), inputs)
            previous = (image, path)
        if index < 1 and self.whole:
            where = self.name or (previous[1] if previous and previous[1] else "the input")
            lose(0, DataError(f"{where}: flow needs two frames or more, found {index + 1}"))

    def _check_sizes(
        self, first: tuple[np.ndarray, str | None], second: tuple[np.ndarray, str | None], index: int
    ) -> None:
        if first[0].shape != second[0].shape:
            names = [path or f"frame {index - 1 + offset}" for offset, (_, path) in enumerate((first, second))]
            sizes = [f"{image.shape[0]}×{image.shape[1]}" for image, _ in (first, second)]
            raise DataError(
                f"{names[0]} is {sizes[0]} pixels (H×W) and {names[1]} is {sizes[1]}: "
                "the frames of a pair must have one size"
            )


class FrameReader:
    """Stretches of a sequence's frames; going forward, no frame is read twice.

    Args:
        frames: what can be iterated again and again.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = frames
        self._restart()

    def _restart(self) -> None:
        self._iterator = iter(self._frames)
        self._next = 0
        self._last: Frame | None = None
        self._error: DataError | None = None

    def read(self, first: int, last: int) -> Iterator[Frame]:
        """Yield the frames from ``first`` to ``last``, as far as there are any.

        Raises:
            DataError: a frame cannot be read.
        """
        if isinstance(self._frames, list | tuple):
            yield from self._frames[first : last + 1]
            return
        if first < self._next - 1:
            self._restart()
        if first == self._next - 1:
            yield self._last
        while self._next <= last:
            if self._error is not None:
                raise self._error
            try:
                self._last = next(self._iterator)
            except StopIteration:
                return
            except DataError as error:
                self._error = error
                raise
            self._next += 1
            if self._next > first:
                yield self._last


def to_image(frame: Frame, name: str = "the frame") -> np.ndarray:
    """Return a frame as H×W×3 RGB in 0..255, uint8 or float32.

    Args:
        frame: a path; an array H×W, H×W×1, H×W×3 or H×W×4 (uint8, uint16 or floats in 0..255); or a tensor 3×H×W
            or 1×3×H×W in 0..255.
        name: for error messages.

    Raises:
        DataError: unreadable file, or another shape or type.
    """
    if isinstance(frame, str | os.PathLike):
        _check_picture(Path(frame))
        return read_image(frame)
    if isinstance(frame, VideoFrame):
        if frame.problem:
            raise DamagedFrameError(frame.problem)
        return frame.image
    if isinstance(frame, Tensor):
        tensor = frame.detach()
        if tensor.ndim == 4 and len(tensor) == 1:
            tensor = tensor[0]
        if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
            raise DataError(f"{name}: expected a tensor 3×H×W or 1×3×H×W, found {tuple(frame.shape)}")
        frame = tensor.to("cpu", torch.uint8 if tensor.dtype == torch.uint8 else torch.float32).movedim(0, -1).numpy()
    if not isinstance(frame, np.ndarray):
        raise DataError(f"{name}: expected a path, array or tensor, found {type(frame).__name__}")
    image = frame[..., None] if frame.ndim == 2 else frame
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise DataError(f"{name}: expected an array H×W×3, H×W×4 or H×W, found {frame.shape}")
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif image.dtype.kind == "f":
        image = image.astype(np.float32, copy=False)
        if not np.isfinite(image).all():
            raise DataError(f"{name}: holds NaN or infinity; expected values in 0..255")
    elif image.dtype != np.uint8:
        raise DataError(f"{name}: expected uint8, uint16 or floats in 0..255, found {image.dtype}")
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]


def find_sequences(inputs: Any) -> list[FrameSequence]:
    """Return the frame sequences in ``inputs``, without loading a frame.

    Args:
        inputs: a folder of pictures (one sequence) or of folders of pictures (one each); a glob (one sequence per
            folder); a video; a list or other iterable of frames (one sequence, in its order); or a list of any of these
            (one or more each), so that a list of pairs is ``[(a, b), (c, d)]``.

    Raises:
        DataError: nothing there, or nothing that holds frames.
    """
    return _told_apart(_find(inputs))


def _find(inputs: Any) -> list[FrameSequence]:
    if isinstance(inputs, str | os.PathLike):
        return _from_path(Path(inputs))
    if isinstance(inputs, np.ndarray | Tensor):
        raise DataError("one array or tensor makes no pair: give a list of two frames or more")
    if isinstance(inputs, FrameSequence):
        return [inputs]
    if not isinstance(inputs, Iterable):
        raise DataError(f"expected paths, arrays, tensors or lists of them, found {type(inputs).__name__}")
    if not isinstance(inputs, list | tuple):
        return [FrameSequence("", inputs, None)]
    if not inputs:
        raise DataError("no input: expected pictures, folders, globs or videos")
    if all(_is_frame(item) for item in inputs):
        return [FrameSequence("", inputs, len(inputs), _frame_names(inputs))]
    return [sequence for item in inputs for sequence in _find([item] if _is_frame(item) else item)]


def count_pairs(sequences: Iterable[FrameSequence]) -> int | None:
    """Return the number of pairs in all sequences, or None where one does not know its length."""
    counts = [sequence.count for sequence in sequences]
    return None if None in counts else sum(max(0, count - 1) for count in counts)


def _is_frame(item: Any) -> bool:
    if isinstance(item, str | os.PathLike):
        path = Path(item)
        one_file = path.is_file() or not (path.is_dir() or glob.has_magic(str(path)))
        return one_file and path.suffix.lower() in IMAGE_SUFFIXES
    return isinstance(item, np.ndarray | Tensor)


def _from_path(path: Path) -> list[FrameSequence]:
    if path.is_dir():
        folders = [path, *sorted((part for part in path.iterdir() if part.is_dir()), key=_natural)]
        if _pictures(path):
            folders = [path]
        sequences = [_from_files(files, _folder_name(folder)) for folder in folders if (files := _pictures(folder))]
        if not sequences:
            raise DataError(f"{path}: no pictures in this folder; expected {' '.join(IMAGE_SUFFIXES)}")
        return sequences
    if glob.has_magic(str(path)) and not path.exists():
        found = sorted((Path(name) for name in glob.glob(str(path), recursive=True)), key=_natural)
        files = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
        videos = [file for file in found if file.suffix.lower() in VIDEO_SUFFIXES]
        if not files and not videos:
            raise DataError(f"{path}: no picture or video matches")
        folders: dict[Path, list[Path]] = {}
        for file in files:
            folders.setdefault(file.parent, []).append(file)
        return [_from_files(files, _folder_name(folder)) for folder, files in folders.items()] + [
            sequence for video in videos for sequence in _from_path(video)
        ]
    if path.suffix.lower() in VIDEO_SUFFIXES:
        video = VideoFrames(path)
        return [FrameSequence(path.stem, video, video.count)]
    _check_picture(path)
    raise DataError(f"{path}: one picture makes no pair; give a second one, a folder, a glob or a video")


def _folder_name(folder: Path) -> str:
    """The folder's name, also where it is given as ``.`` or ``..``, which are no names for results."""
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


def _check_picture(path: Path) -> None:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(
            f"{path}: neither picture nor video by its suffix; expected {' '.join(IMAGE_SUFFIXES)} "
            f"or {' '.join(sorted(VIDEO_SUFFIXES))}"
        )


def _pictures(folder: Path) -> list[Path]:
    files = (
        file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    )
    return sorted(files, key=_natural)


def _from_files(files: list[Path], name: str) -> FrameSequence:
    return FrameSequence(name, files, len(files), _frame_names(files))


def _frame_names(frames: Iterable[Frame]) -> tuple[str, ...] | None:
    """The stems of the files, numbered where two are equal; None when a frame is no file."""
    frames = list(frames)
    if not all(isinstance(frame, str | os.PathLike) for frame in frames):
        return None
    stems = [Path(frame).stem for frame in frames]
    return tuple(stems if len(set(stems)) == len(stems) else (f"{i:06d}_{stem}" for i, stem in enumerate(stems)))


def _told_apart(sequences: list[FrameSequence]) -> list[FrameSequence]:
    """The sequences under names of their own, so that no result overwrites another; a single one needs none."""
    if len(sequences) == 1:
        return [replace(sequences[0], name="")]
    taken: set[str] = set()
    named = []
    for index, sequence in enumerate(sequences):
        name = sequence.name or f"sequence_{index:04d}"
        while name in taken:
            name = f"{name}_{index:04d}"
        taken.add(name)
        named.append(replace(sequence, name=name))
    return named


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """Sort key by which ``frame_10`` follows ``frame_9``."""
    return [(1, int(part)) if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]
