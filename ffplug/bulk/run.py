"""Doing one shard of a bulk job."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

from ffplug.bulk.job import Failure, Shard, Work
from ffplug.bulk.workers import Died, Finished, LocalProcesses, RayWorkers, Ready, ThisProcess, Unable, Workers
from ffplug.errors import ConfigError, DataError, FFPlugError

logger = logging.getLogger(__name__)

ENGINES = ("local", "ray")
RETRIES = 3
STILLBORN = 3
"""Workers that may die before they are ready, with none becoming so in between, until the job gives up."""


class Reporter(Protocol):
    """Is told how a job goes on."""

    def start(self, total: int, done: int) -> None:
        """The shard holds ``total`` pairs or scenes, of which ``done`` were there already."""

    def advance(self, count: int) -> None:
        """So many more have been gone through."""

    def fail(self, failure: Failure) -> None:
        """Something failed."""

    def note(self, text: str) -> None:
        """Something else that the user should know."""


@dataclass
class Report:
    """What became of a shard.

    Attributes:
        done: units done now.
        found: units of the shard that were done before.
        failures: what failed.
        remaining: units of the whole job that are not done, in this shard or others; 0 when the job is complete.
    """

    done: int = 0
    found: int = 0
    failures: list[Failure] = field(default_factory=list)
    remaining: int = 0


def run_job(
    work: Work,
    reporter: Reporter,
    shard: Shard | None = None,
    *,
    engine: str = "local",
    workers: int = 0,
    ray_address: str | None = None,
    retries: int = RETRIES,
    fail_fast: bool = False,
    replace: bool = False,
) -> Report:
    """Do the units of a shard that are not done, and complete the job when it was the last of all.

    Args:
        work: what to do.
        reporter: is told how it goes on.
        shard: which share of the units; None for all of them.
        engine: 'local' or 'ray'.
        workers: processes on this machine, 0 to do the work in this one; on Ray the number of actors, 0 for as many as
            the cluster has GPUs or cores for.
        ray_address: of a Ray cluster; None starts Ray on this machine, unless ``RAY_ADDRESS`` is set.
        retries: how often a unit is done again whose worker died.
        fail_fast: stop at the first failure.
        replace: drop an unfinished job with other settings.

    Raises:
        ConfigError: an argument is wrong, or workers cannot start.
        DataError: the folder holds another job.
        PluginError: Ray is not installed.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine={engine!r}: expected one of {', '.join(ENGINES)}")
    for name, value in (("workers", workers), ("retries", retries)):
        if value < 0:
            raise ConfigError(f"{name}={value}: expected 0 or more")
    if ray_address and engine != "ray":
        raise ConfigError("--ray-address needs --engine ray")
    units = (shard or Shard()).units(len(work))
    report = Report(found=len(units))
    # The second look is for a job that another process completed between the first and the opening of the folder.
    record = work.record()
    begun = not work.is_complete() and work.job.open(record, replace)
    if work.is_complete():
        work.job.drop(record)
        return report
    done = work.job.done() or set()
    waiting = [unit for unit in units if unit not in done]
    report.found = len(units) - len(waiting)
    reporter.start(sum(map(work.size, units)), sum(work.size(unit) for unit in units if unit in done))
    if waiting:
        try:
            with contextlib.closing(_hire(work, engine, min(workers, len(waiting)), ray_address)) as crew:
                _Schedule(work, crew, waiting, retries, fail_fast, reporter, report).run()
        except FFPlugError:
            if begun and not work.job.done():
                work.job.drop(record)  # so that the settings can be mended
            raise
    done = work.job.done()
    if done is not None and len(done) == len(work):
        work.complete()
    if work.is_complete():
        work.job.drop(record)
    elif done is None:
        raise DataError(f"{work.job.path}: this job's folder was removed while it ran")
    else:
        report.remaining = len(work) - len(done)
    return report


def _hire(work: Work, engine: str, workers: int, ray_address: str | None) -> Workers:
    if engine == "ray":
        return RayWorkers(work, workers or None, ray_address)
    return LocalProcesses(work, workers) if workers else ThisProcess(work)


class _Schedule:
    """Keeps workers busy until no unit waits."""

    def __init__(
        self,
        work: Work,
        workers: Workers,
        units: list[int],
        retries: int,
        fail_fast: bool,
        reporter: Reporter,
        report: Report,
    ) -> None:
        self.work = work
        self.workers = workers
        self.waiting = deque(units)
        self.retries = retries
        self.fail_fast = fail_fast
        self.reporter = reporter
        self.report = report
        self.busy: dict[int, int] = {}
        self.idle: set[int] = set()
        self.deaths: Counter[int] = Counter()
        self.stillborn = 0

    def run(self) -> None:
        for slot in range(min(self.workers.count, len(self.waiting))):
            self.workers.start(slot)
        while self.busy or (self.waiting and not self._stopped()):
            for slot, event in self.workers.wait():
                self._take(slot, event)
            while self.idle and self.waiting and not self._stopped():
                slot = self.idle.pop()
                self.busy[slot] = self.waiting.popleft()
                self.workers.send(slot, self.busy[slot])

    def _stopped(self) -> bool:
        return self.fail_fast and bool(self.report.failures)

    def _take(self, slot: int, event: object) -> None:
        unit = self.busy.pop(slot, None)
        match event:
            case Ready():
                self.stillborn = 0
                self.idle.add(slot)
            case Unable(error):
                raise error
            case Finished(failures):
                self.idle.add(slot)
                self._finish(unit, failures)
            case Died(how):
                self.idle.discard(slot)
                self._mourn(unit, how)
                if self.waiting and not self._stopped():
                    self.workers.start(slot)

    def _finish(self, unit: int, failures: list[Failure]) -> None:
        self.report.done += not failures
        self.report.failures += failures
        for failure in failures:
            self.reporter.fail(failure)
        self.reporter.advance(self.work.size(unit))

    def _mourn(self, unit: int | None, how: str) -> None:
        """Have the unit of a worker that died done again, unless it has taken too many workers with it."""
        if unit is None:
            self.stillborn += 1
            self.reporter.note(f"a worker died ({how}) with nothing in hand")
            if self.stillborn > STILLBORN:
                raise ConfigError(f"workers die before they are ready, the last one: {how}; not enough memory?")
            return
        self.deaths[unit] += 1
        name = self.work.name(unit)
        if self.deaths[unit] > self.retries:
            self._finish(unit, [Failure(name, f"its worker died {self.deaths[unit]} times, the last time: {how}")])
            return
        self.reporter.note(f"a worker died ({how}) at {name}, which is done again")
        self.waiting.appendleft(unit)
