"""Leave one subject out: a fold for each person and seed, whose learner never sees the labels of that person."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffplug.datasets.formats import write_bytes
from ffplug.errors import DataError, FFPlugError
from ffplug.files import atomic_path
from ffplug_face.crops import NoFaceError
from ffplug_face.micro_expression.dataset import MicroExpressionDataset
from ffplug_face.micro_expression.learners import Learner
from ffplug_face.micro_expression.manifest import CLASSES, Clip
from ffplug_face.micro_expression.metrics import Predictions
from ffplug_face.registry import MODELS

logger = logging.getLogger(__name__)

RUN = "run.json"


@dataclasses.dataclass(frozen=True)
class Fold:
    """One training: everyone but one person.

    Attributes:
        person: ``dataset/subject`` left out.
        seed: of the run.
        train: indices of the training clips.
        test: indices of the person's clips.
    """

    person: str
    seed: int
    train: tuple[int, ...]
    test: tuple[int, ...]

    @property
    def file(self) -> Path:
        """The fold's predictions, below the run's folder."""
        return Path("folds") / f"seed{self.seed}" / f"{self.person}.csv"

    @property
    def own_seed(self) -> int:
        """A seed that follows from the run's and the person alone."""
        digest = hashlib.sha256(f"{self.seed}/{self.person}".encode()).digest()
        return int.from_bytes(digest[:4], "little") % 2**31


def folds(clips: Sequence[Clip], seeds: Sequence[int], left_out: Collection[str] = ()) -> list[Fold]:
    """All folds, by seed and then by person; a subject id in two data sets is two people.

    Args:
        clips: of the manifest.
        seeds: one training of each fold for each.
        left_out: keys of clips that neither train nor test.

    Raises:
        DataError: there is one person alone.
    """
    used = [index for index, clip in enumerate(clips) if clip.key not in left_out]
    people: dict[str, list[int]] = {}
    for index in used:
        people.setdefault(clips[index].person, []).append(index)
    if len(people) < 2:
        raise DataError(
            f"only {next(iter(people), 'nobody')} in the manifest: leaving one out leaves nobody to learn from"
        )
    return [
        Fold(person, seed, tuple(i for i in used if clips[i].person != person), tuple(people[person]))
        for seed in seeds
        for person in sorted(people)
    ]


@dataclasses.dataclass(frozen=True)
class _Task:
    """What a worker gets of a fold: labels of its training clips, and none of its test clips."""

    fold: Fold
    labels: tuple[int, ...]
    names: tuple[str, ...]


class _Worker:
    """Runs folds with the features of all clips; the work folder receives a file for each."""

    def __init__(
        self,
        learner: Mapping[str, Any],
        folder: Path,
        features: Tensor,
        datasets: Sequence[str],
        classes: int,
        oracle: bool,
    ) -> None:
        self.learner = learner
        self.folder = folder
        self.features = features
        self.datasets = datasets
        self.classes = classes
        self.oracle = oracle

    def __call__(self, task: _Task) -> None:
        fold = task.fold
        train, test = list(fold.train), list(fold.test)
        sets = [self.datasets[index] for index in test]
        watched: list[Tensor] = []

        def watch(learner: Learner) -> None:
            watched.append(learner.predict(self.features[test], sets))

        learner: Learner = MODELS.build(dict(self.learner))
        learner.fit(
            self.features[train],
            torch.tensor(task.labels),
            [self.datasets[index] for index in train],
            self.classes,
            fold.own_seed,
            watch if self.oracle else None,
        )
        found = learner.predict(self.features[test], sets)
        if not found.isfinite().all():
            raise DataError(f"{fold.person}: its predictions are not finite: the training diverged, lower its rate")
        if watched:
            with _whole(self.folder / "epochs" / fold.file.with_suffix(".npy")) as file:
                np.save(file, torch.stack(watched).numpy())
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["clip", *(f"prob{index}" for index in range(self.classes)), "seed", "fold"])
        for name, row in zip(task.names, found.tolist(), strict=True):
            writer.writerow([name, *(f"{value:.9g}" for value in row), fold.seed, fold.person])
        write_bytes(self.folder / fold.file, text.getvalue().encode())


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Any]:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        yield file


_worker: _Worker | None = None


def _start(learner: Mapping[str, Any], folder: Path, datasets: Sequence[str], classes: int, oracle: bool) -> None:
    """Make a process ready: one thread, and the features from disk."""
    global _worker
    torch.set_num_threads(1)
    features = torch.from_numpy(np.load(folder / "features.npy", allow_pickle=False))
    _worker = _Worker(learner, folder, features, datasets, classes, oracle)


def _run(task: _Task) -> None:
    _worker(task)


def collect_features(dataset: MicroExpressionDataset) -> tuple[dict[int, Tensor], dict[str, str]]:
    """The features of a data set's clips by index, and why clips have none: no face was found in their onset frame."""
    found: dict[int, Tensor] = {}
    left_out: dict[str, str] = {}
    for index, clip in enumerate(dataset.clips):
        try:
            found[index] = dataset.features(index)
        except NoFaceError as error:
            left_out[clip.key] = str(error)
    return found, left_out


class LeaveOneSubjectOut:
    """A run in a folder: features once, then the folds that are not there yet.

    The folder holds ``run.json`` (configs, clips and what was noticed), ``features.npy`` and, for each fold,
    ``folds/seedS/DATASET/SUBJECT.csv`` with the probabilities of its clips. Truth is joined when the run is scored.
    Clips whose onset frame shows no face are left out and listed.

    Args:
        dataset: the clips.
        learner: config of the learner.
        folder: of the run.
        seeds: one training of each fold for each.
        oracle: store the test clips' probabilities after every epoch too, for the diagnostic of :func:`oracle_epochs`.
        about: what else describes the run, such as the dataset's config; a run goes on only where it is the same.

    Raises:
        DataError: the folder holds another run, or there is one person alone.
    """

    def __init__(
        self,
        dataset: MicroExpressionDataset,
        learner: Mapping[str, Any],
        folder: str | os.PathLike[str],
        seeds: Sequence[int] = (0,),
        oracle: bool = False,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.dataset = dataset
        self.learner = dict(learner)
        self.folder = Path(folder)
        self.seeds = tuple(seeds)
        self.oracle = oracle
        self.left_out: dict[str, str] = {}
        self.about = {
            "learner": self.learner,
            "data": dict(about or {}),
            "clips": [list(dataclasses.astuple(clip)) for clip in dataset.clips],
            "classes": dataset.classes,
            "procedural": dataset.procedural,
        }
        self._check_folder()
        self.folds = folds(dataset.clips, self.seeds, self.left_out)

    def _check_folder(self) -> None:
        path = self.folder / RUN
        if path.is_file():
            before = _read_run(self.folder)
            here = json.loads(json.dumps(self.about))
            changed = [key for key in here if before.get(key) != here[key]]
            if changed:
                raise DataError(
                    f"{path}: another run (its {' and '.join(changed)} differ): name another folder, or delete this one"
                )
            self.left_out = before["left_out"]

    def run(self, workers: int = 0, progress: Callable[[int, int], None] | None = None) -> list[str]:
        """Compute the features and the folds that are missing.

        Args:
            workers: processes, each with one thread; 0 runs the folds in this process.
            progress: called with the number of folds that are done, and of all.

        Returns:
            What was noticed, one line each: clips that were left out, folds whose training clips lack a class.

        Raises:
            DataError: a frame or flow is missing or damaged, or no two people are left.
            FFPlugError: folds failed; those that are done stay, and the same call goes on with the others.
        """
        clips = self.dataset.clips
        features = self.features()
        self.folds = folds(clips, self.seeds, self.left_out)
        notes = [f"left out {key}: {reason}" for key, reason in self.left_out.items()]
        if notes:
            notes.insert(0, f"{len(notes)} of {len(clips)} clips left out")
        for fold in self.folds:
            seen = {clips[index].label for index in fold.train}
            missing = [str(label) for label in range(self.dataset.classes) if label not in seen]
            if missing and fold.seed == self.folds[0].seed:
                notes.append(f"fold {fold.person}: no training clip of class {', '.join(missing)}")
        for note in notes:
            logger.warning(note)
        about = {**self.about, "left_out": self.left_out, "notes": notes}
        write_bytes(self.folder / RUN, (json.dumps(about, indent=1) + "\n").encode())
        left = [fold for fold in self.folds if not self._done(fold)]
        count, total = len(self.folds) - len(left), len(self.folds)
        tasks = [
            _Task(
                fold,
                tuple(clips[index].label for index in fold.train),
                tuple(clips[index].key for index in fold.test),
            )
            for fold in left
        ]
        sets = [clip.dataset for clip in clips]
        failed: dict[str, BaseException] = {}
        if progress is not None:
            progress(count, total)
        outcomes = self._in_processes(tasks, sets, workers) if workers and tasks else self._here(tasks, features, sets)
        for fold, error in outcomes:
            if error is not None:
                failed[f"{fold.person} (seed {fold.seed})"] = error
            count += error is None
            if progress is not None:
                progress(count, total)
        if failed:
            name, error = next(iter(failed.items()))
            text = f"{len(failed)} of {total} folds failed, first {name}: {type(error).__name__}: {error}"
            raise FFPlugError(f"{text}; the others are kept, and the same command goes on") from error
        return notes

    def _done(self, fold: Fold) -> bool:
        epochs = self.folder / "epochs" / fold.file.with_suffix(".npy")
        return (self.folder / fold.file).is_file() and (not self.oracle or epochs.is_file())

    def features(self) -> Tensor:
        """The features of all clips, N×C×H×W: those in the run's folder, or computed and stored there.

        Those of a clip without a face are zero, and it is listed in ``left_out``.
        """
        path = self.folder / "features.npy"
        if path.is_file() and (self.folder / RUN).is_file():
            return torch.from_numpy(np.load(path, allow_pickle=False))
        start = time.monotonic()
        found, self.left_out = collect_features(self.dataset)
        if not found:
            raise DataError(f"no face in any of {len(self.dataset)} clips: {next(iter(self.left_out.values()))}")
        blank = torch.zeros_like(next(iter(found.values())))
        features = torch.stack([found.get(index, blank) for index in range(len(self.dataset))])
        logger.info("features of %d clips in %.0f s", len(found), time.monotonic() - start)
        with _whole(path) as file:
            np.save(file, features.numpy())
        return features

    def _here(
        self, tasks: Sequence[_Task], features: Tensor, sets: Sequence[str]
    ) -> Iterator[tuple[Fold, BaseException | None]]:
        worker = _Worker(self.learner, self.folder, features, sets, self.dataset.classes, self.oracle)
        for task in tasks:
            try:
                worker(task)
            except Exception as error:
                yield task.fold, error
            else:
                yield task.fold, None

    def _in_processes(
        self, tasks: Sequence[_Task], sets: Sequence[str], workers: int
    ) -> Iterator[tuple[Fold, BaseException | None]]:
        given = (self.learner, self.folder, sets, self.dataset.classes, self.oracle)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(tasks)), context, _start, given) as pool:
            waiting = {pool.submit(_run, task): task.fold for task in tasks}
            try:
                while waiting:
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        error = future.exception()
                        if isinstance(error, BrokenProcessPool):
                            error = DataError("a worker process died, for want of memory perhaps: use fewer workers")
                        yield waiting.pop(future), error
            finally:
                pool.shutdown(cancel_futures=True)  # whoever stops the run does not wait for all folds


def _read_run(folder: Path) -> dict[str, Any]:
    path = folder / RUN
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: no run of `ffplug micro run` ({RUN} is missing)") from None
    except ValueError as error:
        raise DataError(f"{path}: damaged: {error}") from error
    keys = {"clips", "classes", "procedural", "left_out", "notes"}
    if not isinstance(found, dict) or not keys <= found.keys():
        raise DataError(f"{path}: damaged: expected an object with {', '.join(sorted(keys))}")
    return found


def read_run(folder: str | os.PathLike[str]) -> tuple[Predictions, dict[str, Any]]:
    """The pooled predictions of a run with their truth, and what its ``run.json`` says.

    Raises:
        DataError: no run is there, or folds are missing or damaged; says which.
    """
    folder = Path(folder)
    about = _read_run(folder)
    clips = _used(about)
    found: dict[int, dict[str, list[float]]] = {}
    paths = sorted((folder / "folds").glob("seed*/*/*.csv"))
    for path in paths:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                try:
                    values = [float(row[f"prob{index}"]) for index in range(about["classes"])]
                    found.setdefault(int(row["seed"]), {})[row["clip"]] = values
                except (KeyError, TypeError, ValueError) as error:
                    raise DataError(f"{path}: damaged, delete it and run again: {error!r}") from error
    if not found:
        raise DataError(f"{folder}: no fold is done; run `ffplug micro run` to its end")
    keys = [clip.key for clip in clips]
    for seed, rows in found.items():
        missing = [key for key in keys if key not in rows]
        if missing:
            raise DataError(
                f"{folder}: seed {seed} lacks {len(missing)} of {len(keys)} clips, such as {missing[0]}: "
                "run `ffplug micro run` to its end"
            )
    probabilities = np.array([[found[seed][key] for key in keys] for seed in sorted(found)])
    return _predictions(clips, probabilities), about


def _used(about: Mapping[str, Any]) -> list[Clip]:
    """The clips of a run but those that were left out."""
    clips = [Clip(*values) for values in about["clips"]]
    return [clip for clip in clips if clip.key not in about["left_out"]]


def _predictions(clips: Sequence[Clip], probabilities: np.ndarray) -> Predictions:
    return Predictions(
        tuple(clip.key for clip in clips),
        tuple(clip.dataset for clip in clips),
        tuple(clip.person for clip in clips),
        np.array([clip.label for clip in clips]),
        probabilities,
    )


def oracle_epochs(folder: str | os.PathLike[str]) -> Predictions:
    """Predictions of the epoch that suits each fold's TEST labels best: a diagnostic of how much that flatters.

    It is no result of a method: nobody has those labels when a person is new. Runs with ``oracle`` store what it needs.

    Raises:
        DataError: the run did not store its epochs.
    """
    folder = Path(folder)
    about = _read_run(folder)
    clips = _used(about)
    truth = np.array([clip.label for clip in clips])
    seeds = sorted(int(path.name.removeprefix("seed")) for path in (folder / "folds").glob("seed*"))
    probabilities = np.zeros((len(seeds), len(clips), about["classes"]))
    for fold in folds(clips, seeds):
        path = folder / "epochs" / fold.file.with_suffix(".npy")
        if not path.is_file():
            raise DataError(f"{path} is missing: run `ffplug micro run --oracle-epoch`")
        stored = np.load(path, allow_pickle=False)
        test = list(fold.test)
        right = (stored.argmax(-1) == truth[test]).sum(1)
        probabilities[seeds.index(fold.seed), test] = stored[right.argmax()]
    return _predictions(clips, probabilities)


def counts(clips: Sequence[Clip]) -> str:
    """How many clips there are of each class, in a line."""
    found = Counter(clip.label for clip in clips)
    names = [CLASSES[label] if label < len(CLASSES) else str(label) for label in sorted(found)]
    return ", ".join(f"{found[label]} {name}" for label, name in zip(sorted(found), names, strict=True))
