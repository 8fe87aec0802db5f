"""What the data sets of faces have in common: which samples are taken, and where their labels come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from ffplug_face.affect import LOGIT, THRESHOLDS
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ffplug.datasets.base import Problem, ScannedDataset, choose
from ffplug.datasets.layouts import join
from ffplug.datasets.seeding import derive_seed
from ffplug.errors import ConfigError, DataError, did_you_mean
from ffplug.structures import shown_name
from ffplug_fpnmaa.datasets.teachers import read_teachers
from ffplug_fpnmaa.labels import LIMIT, TASKS, check_tasks, class_names

SUBSETS = ("all", "train", "held_out")


class AffectDataset(ScannedDataset):
    """Pictures of faces with what is known of each: valence and arousal, expression, action units, or some of them.

    A sample is taken if one of ``tasks`` is known of it, by its own labels or by a teacher.

    Args:
        data_root: root folder of the data set.
        tasks: labels to read, of ``va``, ``expr`` and ``au``.
        classes: number of expressions.
        every: take frames whose number divides by it; neighbours in a video are nearly the same.
        thin: by name of an expression, how many of its samples stand for one (10 takes every tenth).
        unlabelled: also take samples of which nothing is known.
        subset: ``all``, or one of two parts: ``train`` and ``held_out``.
        share: of the held-out part.
        held_out_by: ``sequence`` (whole videos or people) or ``sample``; neighbouring frames are then on both sides,
            which makes the held-out part's figures too good.
        seed: of the division into parts.
        teachers: by task, a file of a teacher's labels (see :mod:`ffplug_fpnmaa.datasets.teachers`); samples then carry
            ``teacher_TASK``.
        fill: put a teacher's hard label where the truth is not known, as published.
        threshold: with ``fill``, when a unit is there: its ``probability`` is above .5, or its ``logit``, as published.
        pipeline: transforms; None loads, resizes to 128×128 and packs.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Raises:
        ConfigError: an argument is none of the above.
        DataError: a file is missing or wrong; the message names the line.
    """

    noun = "faces"
    example: ClassVar[Mapping[str, Any]] = {"scenes": 2, "frames": 6, "size": (32, 32)}
    default_pipeline = (
        dict(type="ffplug_fpnmaa.LoadFace"),
        dict(type="ffplug_fpnmaa.ResizeFace", size=128),
        dict(type="ffplug_fpnmaa.PackAffect"),
    )

    def __init__(
        self,
        data_root: str,
        tasks: str | Sequence[str] = TASKS,
        *,
        classes: int = 7,
        every: int = 1,
        thin: Mapping[str, int] | None = None,
        unlabelled: bool = False,
        subset: str = "all",
        share: float = 0.05,
        held_out_by: str = "sequence",
        seed: int = 1234,
        teachers: Mapping[str, str] | None = None,
        fill: bool = False,
        threshold: str = "probability",
        pipeline: Sequence[dict | Callable] | None = None,
        **kwargs: Any,
    ) -> None:
        self.tasks = check_tasks("tasks", tasks)
        if every < 1 or classes < 2 or not 0 < share < 1:
            raise ConfigError(f"every={every}, classes={classes}, share={share}: expected >= 1, >= 2, and 0..1")
        self.classes, self.every, self.unlabelled, self.share, self.seed = classes, every, unlabelled, share, seed
        names = class_names(classes)
        for name, step in (thin or {}).items():
            if name not in names or step < 1:
                near = did_you_mean(name, names)
                raise ConfigError(f"thin: {name}={step}: expected a number from 1 for {', '.join(names)}{near}")
        self.thin = {names.index(name): int(step) for name, step in (thin or {}).items()}
        self.subset = choose("subset", subset, SUBSETS)
        self.held_out_by = choose("held_out_by", held_out_by, ("sequence", "sample"))
        self.threshold = 0.5 if choose("threshold", threshold, THRESHOLDS) == "probability" else LOGIT
        self.teacher_files = {task: str(path) for task, path in (teachers or {}).items()}
        if teachers:
            check_tasks("teachers", tuple(teachers))
        self.fill = fill
        self.skipped: dict[str, int] = {}
        self.teachers = read_teachers(self.teacher_files)
        super().__init__(data_root, pipeline, **kwargs)

    def skip(self, reason: str, count: int = 1) -> None:
        """Count samples that are passed over, for the log."""
        if count:
            self.skipped[reason] = self.skipped.get(reason, 0) + count

    def face(
        self,
        image: str,
        sequence: str,
        frame: int,
        sample_id: str,
        box: Sequence[float] | None = None,
        va: Sequence[float] | None = None,
        expr: int | None = None,
        au: Sequence[float] | None = None,
    ) -> dict[str, Any]:
        """One entry of the list.

        Args:
            image: path below the root.
            sequence: what belongs together: a video or a person.
            frame: its number there.
            sample_id: unique in the data set.
            box: left, top, width, height of the face in pixels; None where the picture is the face.
            va: valence and arousal, or None.
            expr: class, or None.
            au: 0 or 1 for each unit, or None.
        """
        return dict(
            image_path=image,
            dataset=self.name,
            sequence=sequence,
            frame=frame,
            sample_id=sample_id,
            box=box,
            va=va,
            expr=expr,
            au=au,
        )

    def load_data_list(self) -> list[dict[str, Any]]:  # noqa: D102 (see the base class)
        self.skipped = {}
        entries = super().load_data_list()
        shown = shown_name(self.name, self._metainfo["procedural"])
        if self.skipped:
            counts = "; ".join(f"{count} {reason}" for reason, count in self.skipped.items())
            print_log(f"{shown}: passed over {counts}", logger="current")
        known = {task: sum(entry[task] is not None for entry in entries) for task in TASKS}
        told = {
            task: sum(entry["sample_id"] in labels.rows for entry in entries) for task, labels in self.teachers.items()
        }
        counts = [f"{count} with {task}" for task, count in known.items() if task in self.tasks]
        counts += [f"{count} with a teacher's {task}" for task, count in told.items()]
        print_log(f"{shown}: {', '.join(counts)}", logger="current")
        for task, count in told.items():
            if not count:
                path = self.teacher_files[task]
                raise DataError(f"{path}: names none of the samples of {shown}; was it written for other data?")
        return entries

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the samples that are taken."""
        seen: dict[int, int] = {}
        for entry in self.find(problems):
            for task in TASKS:
                if task not in self.tasks:
                    entry[task] = None
            if self.every > 1 and entry["frame"] % self.every:
                self.skip("by `every`")
                continue
            labelled = any(entry[task] is not None for task in self.tasks)
            labelled = labelled or any(entry["sample_id"] in labels.rows for _, labels in self.teachers.items())
            if not labelled and not self.unlabelled:
                self.skip("without a valid label")
                continue
            if entry["expr"] in self.thin:
                seen[entry["expr"]] = seen.get(entry["expr"], -1) + 1
                if seen[entry["expr"]] % self.thin[entry["expr"]]:
                    self.skip("by `thin`")
                    continue
            if self.subset != "all" and self._is_held_out(entry) != (self.subset == "held_out"):
                continue
            yield entry

    def _is_held_out(self, entry: Mapping[str, Any]) -> bool:
        name = entry["sequence"] if self.held_out_by == "sequence" else entry["sample_id"]
        return derive_seed(self.seed, "held out", name) < self.share * 2**63

    def find(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield all samples, made by :meth:`face`, and put what is wrong into ``problems``."""
        raise NotImplementedError

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:
        """Put ``data_root`` before the path, and add what teachers say."""
        info["image_path"] = join(self.data_root, info["image_path"])
        for task, labels in self.teachers.items():
            said = labels.get(info["sample_id"])
            if said is None:
                continue
            if task == "va" and len(said) > 2:
                info["teacher_va_bins"] = said[2:].reshape(2, -1)
                said = said[:2]
            info[f"teacher_{task}"] = said
            if self.fill and info[task] is None:
                info[task] = {
                    "va": lambda said=said: np.clip(said, -LIMIT, LIMIT),
                    "expr": lambda said=said: int(said.argmax()),
                    "au": lambda said=said: said > self.threshold,
                }[task]()
        return info

    def labels(self, task: str) -> list[Any]:
        """What is known of each sample, or None; for samplers."""
        self.full_init()
        if task not in TASKS:
            raise ConfigError(f"{task!r}: expected one of {', '.join(TASKS)}")
        entries = (BaseDataset.get_data_info(self, index) for index in range(len(self)))
        return [self.resolve(entry)[task] for entry in entries]
