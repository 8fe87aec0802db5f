"""Aff-Wild2 as the second ABAW release has it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ffplug.datasets.base import Problem, choose
from ffplug.datasets.layouts import join, list_folder
from ffplug.errors import DataError, did_you_mean
from ffplug_fpnmaa.datasets.annotations import read_annotations, read_frame_counts, read_lines
from ffplug_fpnmaa.datasets.base import AffectDataset
from ffplug_fpnmaa.registry import DATASETS

FOLDERS = {"va": "VA_Set", "expr": "EXPR_Set", "au": "AU_Set"}
SPLITS = {"train": "Train_Set", "validation": "Validation_Set"}
TEST_LISTS = {
    "va": "test_set_VA_Challenge_frame.txt",
    "expr": "test_set_Expr_Challenge_frame.txt",
    "au": "test_set_AU_Challenge_frame.txt",
}
LATER = ("VA_Estimation_Challenge", "EXPR_Classification_Challenge", "AU_Detection_Challenge", "MTL_Challenge")
"""Folders of annotations of the third and later releases, in part."""

IMAGES = ("cropped_aligned", "cropped_aligned_new_50_vids")


@DATASETS.register_module()
class AffWild2Dataset(AffectDataset):
    """Frames of Aff-Wild2 (Kollias and Zafeiriou), second ABAW release: 112×112 crops, labels frame by frame.

    ``annotations/{VA_Set,EXPR_Set,AU_Set}/{Train_Set,Validation_Set}/VIDEO.txt`` and
    ``cropped_aligned/VIDEO/00001.jpg``; a video of two people is ``VIDEO_left`` and ``VIDEO_right``. Frames without
    a face have no picture and are counted; so are pictures after a video's last line of labels.

    Args:
        data_root: the folder of ``annotations``.
        split: ``train``, ``validation``, or ``test``: the frames of the videos that ``test_set_..._frame.txt`` lists
            for the first of ``tasks``, without labels.
        images: folders of crops below the root; where several have a video, the first.
        videos: names of videos, or the path of a list of them, one a line; None takes all.
        **kwargs: see :class:`AffectDataset`.

    Raises:
        DataError: the annotations are of another release, or a file is wrong; the message names the line.

    Example:
        dict(type="ffplug_fpnmaa.AffWild2Dataset", data_root="data/Aff-Wild2")
    """

    layout = "affwild2"
    title = "Aff-Wild2"
    noun = "frames"

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        images: str | Sequence[str] = IMAGES,
        videos: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.split = choose("split", split, (*SPLITS, "test"))
        self.images = (images,) if isinstance(images, str) else tuple(images)
        self.videos = videos
        super().__init__(data_root, **{"unlabelled": split == "test", **kwargs})

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return f"{self.title}/{self.split}"

    def find(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the frames, video by video."""
        if self.split == "test":
            yield from self._find_test(problems)
            return
        self._check_release()
        labels: dict[str, dict[str, str]] = {}
        for task in self.tasks:
            folder = join("annotations", FOLDERS[task], SPLITS[self.split])
            for file in self.files(folder):
                if file.endswith(".txt"):
                    labels.setdefault(file.removesuffix(".txt"), {})[task] = join(folder, file)
        for video in self._chosen(labels):
            yield from self._find_video(video, labels[video], problems)

    def _check_release(self) -> None:
        there = self.folders("annotations")
        wanted = [FOLDERS[task] for task in self.tasks]
        later = [name for name in there if any(name.lower().startswith(other.lower()[:9]) for other in LATER)]
        if later and not set(wanted) & set(there):
            raise DataError(
                f"{join(self.data_root, 'annotations')}: {', '.join(later)} are folders of a later release (ABAW3 on), "
                "whose splits and classes differ; expected the second one's VA_Set, EXPR_Set and AU_Set"
            )
        self.require(*(join("annotations", name, SPLITS[self.split]) for name in wanted))

    def _chosen(self, there: Mapping[str, Any]) -> list[str]:
        if self.videos is None:
            return sorted(there)
        if isinstance(self.videos, str):
            wanted = [line.strip() for line in read_lines(self.videos) if line.strip()]
        else:
            wanted = list(self.videos)
        for name in wanted:
            if name not in there:
                raise DataError(f"{self.data_root}: no video {name!r} in {self.split}{did_you_mean(name, there)}")
        return wanted

    def _pictures(self, video: str) -> tuple[str, dict[int, str]] | None:
        """The folder of a video's crops, and their names by number; None where there is no folder."""
        for images in self.images:
            folder = join(images, video)
            files = list_folder(join(self.data_root, folder))[1]
            if files:
                numbered = {int(m[1]): name for name in files if (m := re.fullmatch(r"(\d+)\.(?:jpg|png)", name))}
                return folder, dict(sorted(numbered.items()))
        return None

    def _find_video(self, video: str, files: Mapping[str, str], problems: list[Problem]) -> Iterable[dict[str, Any]]:
        labels: dict[str, np.ndarray] = {}
        for task, path in files.items():
            try:
                labels[task] = read_annotations(join(self.data_root, path), task, self.classes)
            except DataError as error:
                problems.append(Problem(path, str(error).removeprefix(self.data_root).lstrip("/"), video))
        found = self._pictures(video)
        if found is None:
            problems.append(
                Problem(join(self.images[0], video), "the frames of this annotated video are missing", video)
            )
            return
        folder, pictures = found
        lines = max(map(len, labels.values()), default=0)
        self.skip("lines of labels without a picture", sum(number + 1 not in pictures for number in range(lines)))
        for number, name in pictures.items():
            if number > lines:
                self.skip("pictures after the last line of labels")
                if not self.unlabelled:
                    continue
            yield self.face(
                join(folder, name), video, number, f"{video}/{number:05d}", **self._known(labels, number - 1)
            )

    @staticmethod
    def _known(labels: Mapping[str, np.ndarray], row: int) -> dict[str, Any]:
        known: dict[str, Any] = {}
        for task, table in labels.items():
            if not 0 <= row < len(table):
                continue
            if task == "expr":
                known[task] = int(table[row]) if table[row] >= 0 else None
            else:
                known[task] = None if np.isnan(table[row]).any() else table[row].tolist()
        return known

    def _find_test(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        counts = read_frame_counts(join(self.data_root, TEST_LISTS[self.tasks[0]]))
        for video in self._chosen(counts):
            found = self._pictures(video)
            if found is None:
                problems.append(
                    Problem(join(self.images[0], video), "the frames of this test video are missing", video)
                )
                continue
            folder, pictures = found
            for number, name in pictures.items():
                if number > counts[video]:
                    self.skip("pictures after a video's listed number of frames")
                    continue
                yield self.face(join(folder, name), video, number, f"{video}/{number:05d}")
