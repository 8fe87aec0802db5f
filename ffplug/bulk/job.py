"""What the processes of a bulk job share: a folder with the job's record and a mark for each unit that is done.

Nothing here needs locks, which network file systems often lack; every step is one rename or one creation of a file:

- Results are written into a staging folder and renamed to their places, so a file that is there is whole.
- The job folder appears by a rename, with its record inside, so the first process decides what the job is.
- A unit's mark is created after its results are in place. Whoever then finds all marks completes the job; two processes
  may find them at once, and :meth:`Work.complete` stands that.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ffplug.errors import ConfigError, DataError, FFPlugError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """A machine's share of a job: every ``count``-th unit, from the ``index``-th on (from 1)."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``3/8``, the third of eight.

        Raises:
            ConfigError: it is not that, or there is no such shard.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip(), re.ASCII)
        if not match:
            raise ConfigError(f"--shard {text}: expected INDEX/COUNT, such as 1/8 on the first of eight machines")
        index, count = int(match[1]), int(match[2])
        if not 1 <= index <= count:
            raise ConfigError(f"--shard {text}: shards count from 1, so expected 1/{count} to {count}/{count}")
        return cls(index, count)

    def units(self, total: int) -> range:
        """The units of a job of ``total`` units that belong to this shard."""
        return range(self.index - 1, total, self.count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class Failure:
    """Something that a unit was to make and did not.

    Attributes:
        name: of a pair or a scene.
        reason: in one line.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Work(ABC):
    """What a bulk job does. It is pickled to its workers, on other machines too, so its paths are absolute.

    A unit's results follow from the work and the unit alone, byte for byte, wherever and how often it is done.

    Attributes:
        noun: what units hold, for messages.
        job: the folder that all processes of the job share.
        targets: folders that results go to.
        staging: for each target a folder on the same file system, for results that are not complete yet. Both are there
            when a worker gets its first unit.
        device: as in ``--device``; None takes a GPU where there is one.
        threads: that a worker uses.
    """

    noun: ClassVar[str]
    job: JobFolder
    targets: tuple[Path, ...]
    staging: tuple[Path, ...]
    device: str | None = "cpu"
    threads: int = 1

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Return all that the results follow from, as JSON; processes with other records are refused."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of units."""

    @abstractmethod
    def name(self, unit: int) -> str:
        """Return a unit's name for messages."""

    @abstractmethod
    def size(self, unit: int) -> int:
        """Return how many pairs or scenes a unit holds, for the progress."""

    @abstractmethod
    def prepare(self, slot: int) -> Callable[[int, Sequence[Path]], list[Failure]]:
        """Get ready in a worker: load a model, say.

        Args:
            slot: number of the worker on its machine, from 0; workers share the machine's GPUs by it.

        Returns:
            What does a unit: ``do(unit, folders)`` writes into the folders, one for each target, whatever is to appear
            in the targets, and returns what failed.
        """

    @abstractmethod
    def is_complete(self) -> bool:
        """Return whether the results of this very job are all there.

        Raises:
            DataError: results of another job are in their place.
        """

    @abstractmethod
    def complete(self) -> None:
        """Do what comes after the last unit, and at last make :meth:`is_complete` true.

        Several processes may call it at once, and again after an interruption.
        """


class JobFolder:
    """The folder that the processes of a job share.

    Args:
        path: where it is; made by :meth:`open`, gone after :meth:`drop`, and never made again by who still works in it.
        inner: folders that are made with it.
    """

    def __init__(self, path: Path, *inner: str) -> None:
        self.path = path
        self.inner = inner

    def open(self, record: Mapping[str, Any], replace: bool = False) -> bool:
        """Begin the job, or join the one that has begun.

        Args:
            record: what its results follow from.
            replace: drop an unfinished job of another record.

        Returns:
            Whether the job was begun, not joined.

        Raises:
            DataError: an unfinished job of another record is there.
        """
        found = self._read()
        if found is not None and found != record and replace:
            self.drop(found)
            found = None
        if found is None and self._create(record):
            return True
        found = self._read()
        if found != record:
            raise DataError(
                f"{self.path}: an unfinished job with other settings ({differences(found or {}, record)}); give those "
                "settings to finish it, or choose another folder, or delete this one"
            )
        return False

    def _create(self, record: Mapping[str, Any]) -> bool:
        fresh = self._beside()
        for name in ("done", *self.inner):
            (fresh / name).mkdir(parents=True)
        (fresh / "job.json").write_text(json.dumps(record, indent=2) + "\n")
        try:
            os.rename(fresh, self.path)
        except OSError:
            shutil.rmtree(fresh)
            if self._read() is None:
                raise DataError(f"{self.path}: exists and is no folder of a job; move it away") from None
            return False
        return True

    def _read(self) -> dict[str, Any] | None:
        return read_record(self.path / "job.json")

    def _beside(self) -> Path:
        return self.path.with_name(f"{self.path.name}.{secrets.token_hex(6)}")

    def done(self) -> set[int] | None:
        """Return the units that are done, or None when the job is over and its folder gone."""
        try:
            return {int(name) for name in os.listdir(self.path / "done")}
        except FileNotFoundError:
            return None

    def exists(self) -> bool:
        """Return whether the job goes on."""
        return (self.path / "job.json").exists()

    def mark(self, unit: int) -> None:
        """Note that a unit's results are in place."""
        (self.path / "done" / str(unit)).touch()

    def drop(self, record: Mapping[str, Any]) -> None:
        """Remove the folder of the job of this record, at once for all who look."""
        if self._read() != record:
            return
        gone = self._beside()
        try:
            os.rename(self.path, gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)

    def clear(self) -> None:
        """Remove folders that whoever wrote on after the end has made again; those in use are not empty."""
        for folder in (*(self.path / name for name in self.inner), self.path):
            with contextlib.suppress(OSError):
                folder.rmdir()


class UnitRunner:
    """Does units of a work in a worker, each wholly or not at all.

    Args:
        work: the work.
        slot: number of the worker on its machine.
    """

    def __init__(self, work: Work, slot: int = 0) -> None:
        self.work = work
        self._do = work.prepare(slot)

    def __call__(self, unit: int) -> list[Failure]:
        """Do a unit, put its results in place, and mark it as done unless something failed; return what failed."""
        token = secrets.token_hex(6)
        folders = [staging / f"{unit}.{token}" for staging in self.work.staging]
        try:
            for folder in folders:
                folder.mkdir()
            failures = self._do(unit, folders)
            for folder, target in zip(folders, self.work.targets, strict=True):
                move_files(folder, target)
            if not failures:
                self.work.job.mark(unit)
            return failures
        except Exception as error:
            # Whatever goes wrong in one unit, the others go on.
            logger.debug("%s failed", self.work.name(unit), exc_info=True)
            if isinstance(error, OSError):
                done = self.work.job.done()
                if done is None or unit in done:
                    return []  # another process did the same unit, and the job is over
            return [Failure(self.work.name(unit), one_line(error))]
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            if not self.work.job.exists():
                self.work.job.clear()


def move_files(source: Path, target: Path) -> None:
    """Move the files below a folder to the same places below another, each at once and after its bytes are safe."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
            continue
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(path, place)


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None where there is no file.

    Raises:
        DataError: something else is in it.
    """
    try:
        record = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); move it away") from None
    if not isinstance(record, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(record).__name__}")
    return record


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say in which values two records differ, in one line."""
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key}: {old.get(key)!r} there, {new.get(key)!r} here" for key in keys)


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, with its type where it is not the input's fault."""
    text = " ".join(str(error).split())
    return text if isinstance(error, FFPlugError) else f"{type(error).__name__}: {text}"
