"""What all datasets share: finding samples, complaining about what is missing, seeding, metainfo."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import cv2
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ffplug.datasets.layouts import explain_root, get_layout, join, list_folder, read_marker
from ffplug.datasets.seeding import index_rng
from ffplug.errors import ConfigError, DataError, did_you_mean
from ffplug.structures import shown_name


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something wrong in a data folder: the file or folder, what is wrong, and where it belongs."""

    path: str
    message: str
    sequence: str = ""


class ScannedDataset(BaseDataset):
    """Samples found by looking through one data set's own layout on disk.

    The list of samples holds paths below ``data_root`` only and is kept as one block of bytes that workers share. All
    that is random follows from the draw of an index that carries one (:class:`~ffplug.datasets.seeding.SeededIndex`).

    Subclasses set :attr:`layout` and :attr:`title` and yield their samples in :meth:`scan`.

    Args:
        data_root: root folder of the data set, as its :class:`~ffplug.datasets.layouts.Layout` describes it.
        pipeline: transforms; None takes :attr:`default_pipeline`.
        indices: the first n samples (int) or the samples of these positions.
        test_mode: kept for MMEngine's interface; nothing is ever fetched in the place of a damaged sample.
        lazy_init: find the samples at first use, not now.

    Raises:
        DataError: the folder is missing, empty, incomplete or another data set's.
    """

    layout: ClassVar[str] = ""
    title: ClassVar[str] = ""
    noun: ClassVar[str] = "samples"
    """What the samples are, for messages."""
    default_pipeline: ClassVar[tuple[dict[str, Any], ...]] = ()
    """What loads a sample and packs it."""
    example: ClassVar[Mapping[str, Any]] = {"scenes": 2, "frames": 3, "size": (64, 96)}
    """What :meth:`write_example` writes: arguments of a procedural :class:`~ffplug.datasets.procedural.Recipe`."""

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[dict | Callable] | None = None,
        *,
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        if pipeline is None:
            pipeline = [dict(step) for step in self.default_pipeline]
        root = os.path.expanduser(os.fspath(data_root)) if data_root else ""
        if not root:
            raise DataError(f"{type(self).__name__}: data_root is empty; give the folder that holds the data set")
        super().__init__(
            data_root=root,
            data_prefix={},
            pipeline=list(pipeline),
            indices=indices,
            test_mode=test_mode,
            lazy_init=True,
        )
        self._metainfo.update(dataset=self.name, procedural=read_marker(root) is not None)
        if not lazy_init:
            self.full_init()

    @classmethod
    def write_example(cls, folder: str | os.PathLike) -> None:
        """Write a small procedural set in this data set's layout to a new folder, for tests and examples."""
        from ffplug.datasets.procedural.writers import Recipe, write_procedural

        write_procedural(Recipe(cls.layout, textures="analytic", **cls.example), folder)

    @property
    def name(self) -> str:
        """The data set's name with its pass, such as ``'Sintel/clean'``."""
        return self.title

    @property
    def published_pairs(self) -> int | None:
        """How many samples the published set has for these arguments, or None where that is not known."""
        return None

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the samples' entries, and put what is missing or out of order into ``problems``.

        An entry has at least ``sequence`` and ``sample_id``. A whole folder that is missing is an error at once
        (:meth:`require`).
        """
        raise NotImplementedError

    def load_data_list(self) -> list[dict[str, Any]]:
        """Find the samples.

        Raises:
            DataError: something is missing; the message names the first problem and counts the others.
        """
        problems: list[Problem] = []
        pairs = list(self.scan(problems))
        shown = shown_name(self.name, self._metainfo["procedural"])
        if problems:
            first = problems[0]
            others = f" and {len(problems) - 1} more problem(s)" if len(problems) > 1 else ""
            raise DataError(
                f"{shown}: {first.path}: {first.message}{others}; `ffplug data check {self.data_root}` names them all"
            )
        if not pairs:
            raise DataError(f"{shown}: no {self.noun} in {self.data_root}; {self._wanted()}")
        print_log(f"{shown}: {len(pairs)} {self.noun} in {self.data_root}", logger="current")
        self._warn(len(pairs), shown)
        return pairs

    def _wanted(self) -> str:
        return f"expected {get_layout(self.layout).expected}" if self.layout else "expected at least two frames"

    def _warn(self, found: int, shown: str) -> None:
        published = self.published_pairs
        if self._metainfo["procedural"]:
            print_log(
                f"{self.data_root} holds procedural scenes: {shown}. Its figures say nothing about {self.name}.",
                logger="current",
                level=logging.WARNING,
            )
        elif published is not None and found != published:
            print_log(
                f"{shown}: found {found} {self.noun}, the published set has {published}: going on with what is there",
                logger="current",
                level=logging.WARNING,
            )

    def require(self, *folders: str) -> str:
        """Return the first of these folders below the root that exists.

        Raises:
            DataError: none does; the message says what lies there instead and what the likely mistake is.
        """
        for folder in folders:
            if list_folder(join(self.data_root, folder)) != ([], []):
                return folder
        raise DataError(explain_root(self.data_root, self.layout, " or ".join(f"{folder}/" for folder in folders)))

    def folders(self, folder: str) -> list[str]:
        """Sorted names of the folders in a folder below the root."""
        return list_folder(join(self.data_root, folder))[0]

    def files(self, folder: str) -> list[str]:
        """Sorted names of the files in a folder below the root."""
        return list_folder(join(self.data_root, folder))[1]

    def numbered(self, folder: str, pattern: str) -> dict[int, str]:
        """Files of a folder below the root by the number that ``pattern``'s first group matches, in order."""
        expression = re.compile(pattern)
        found = {int(match[1]): name for name in self.files(folder) if (match := expression.fullmatch(name))}
        return dict(sorted(found.items()))

    def consecutive(self, folder: str, pattern: str, sequence: str, problems: list[Problem]) -> list[int]:
        """Numbers of a sequence's frames in order; a gap and a lone frame are problems."""
        files = self.numbered(folder, pattern)
        frames = list(files)
        if len(frames) < 2:
            found = f"found {len(frames)}"
            problems.append(Problem(folder, f"expected two or more frames, {found}", sequence))
            return frames
        missing = sorted(set(range(frames[0], frames[-1])) - set(frames))
        for number in missing:
            name = files[frames[0]]
            digits = re.fullmatch(pattern, name).span(1)
            missing_name = f"{name[: digits[0]]}{number:0{digits[1] - digits[0]}d}{name[digits[1] :]}"
            problems.append(Problem(join(folder, missing_name), "this frame is missing", sequence))
        return frames

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The entry of a sample with full paths, ``procedural`` and ``draw``."""
        idx = idx + len(self) if idx < 0 else idx
        if not 0 <= idx < len(self):
            raise IndexError(f"{self.name}: index out of range: there are {len(self)} {self.noun}")
        info = self.resolve(super().get_data_info(idx))
        info["procedural"] = self._metainfo["procedural"]
        info["draw"] = getattr(idx, "draw", None)
        return info

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:
        """Put ``data_root`` before the paths of an entry."""
        raise NotImplementedError

    def __getitem__(self, idx: int) -> dict[str, Any]:
        self.full_init()
        if torch.utils.data.get_worker_info() is not None:
            _use_one_thread()
        with index_rng(idx):
            return self.pipeline(self.get_data_info(idx))


class FlowDataset(ScannedDataset):
    """Pairs of frames with or without true flow, read from one data set's own layout on disk.

    An item is ``dict(inputs=uint8 Tensor 2×3×H×W, data_samples=FlowDataSample)`` after the default pipeline.
    :meth:`scan` yields what :meth:`pair` makes. Arguments and errors are those of :class:`ScannedDataset`.
    """

    noun = "frame pairs"
    default_pipeline = (dict(type="ffplug.LoadFlowPair"), dict(type="ffplug.PackFlowInputs"))

    def pair(
        self,
        img1: str,
        img2: str,
        flow: str | None = None,
        *,
        sequence: str,
        frame: int,
        sample_id: str,
        dataset: str | None = None,
        masks: dict[str, str] | None = None,
        doubled: bool = False,
        mask_above: int = 0,
    ) -> dict[str, Any]:
        """One entry of the list; paths are below the root, ``masks`` maps the name of a mask to its file.

        ``doubled`` allows for ground truth on a grid twice as fine as the frames; ``mask_above`` is the greatest value
        of a mask picture that counts as not set.
        """
        return dict(
            img1_path=img1,
            img2_path=img2,
            flow_path=flow,
            mask_paths=masks or {},
            dataset=dataset or self.name,
            sequence=sequence,
            frame=frame,
            sample_id=sample_id,
            doubled=doubled,
            mask_above=mask_above,
        )

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:
        """Put ``data_root`` before the paths of an entry."""
        for key in ("img1_path", "img2_path", "flow_path"):
            if info[key] is not None:
                info[key] = join(self.data_root, info[key])
        info["mask_paths"] = {name: join(self.data_root, path) for name, path in info["mask_paths"].items()}
        return info


@functools.cache
def _use_one_thread() -> None:
    """Keep OpenCV from starting a pool of threads in each data-loading worker (they fight over the cores)."""
    cv2.setNumThreads(0)
    cv2.ocl.setUseOpenCL(False)


def choose(argument: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value``, or fail naming the argument and what it may be.

    Raises:
        ConfigError: it is none of ``allowed``.
    """
    if value not in allowed:
        near = did_you_mean(str(value), allowed)
        raise ConfigError(f"{argument}={value!r}: expected one of {', '.join(map(repr, allowed))}{near}")
    return value


def choose_all(argument: str, values: str | Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    """Return ``values`` (one or several) as a tuple, or fail as :func:`choose` does."""
    values = (values,) if isinstance(values, str) else tuple(values)
    if not values:
        raise ConfigError(f"{argument} is empty: expected one or more of {', '.join(map(repr, allowed))}")
    return tuple(choose(argument, value, allowed) for value in values)
