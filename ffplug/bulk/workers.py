"""Who does the units: this process, local processes, or actors on a Ray cluster.

All three are the same to :func:`ffplug.bulk.run.run_job`: numbered workers that start, say when they are ready, do one
unit at a time, and may die.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeAlias

from ffplug.bulk.job import Failure, UnitRunner, Work, one_line
from ffplug.errors import ConfigError, FFPlugError, PluginError

RAY_HINT = "Ray is not installed, which --engine ray needs: pip install 'ffplug[ray]'"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
"""Workers already take all cores, so the libraries in them should not start a thread for each core again."""


@dataclass(frozen=True)
class Ready:
    """The worker can be sent units."""


@dataclass(frozen=True)
class Unable:
    """The worker cannot start, for a reason that the next one would meet too."""

    error: FFPlugError


@dataclass(frozen=True)
class Finished:
    """The unit that the worker was sent is over."""

    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Died:
    """The worker is no more."""

    how: str


Event: TypeAlias = Ready | Unable | Finished | Died


class Workers(Protocol):
    """Numbered workers.

    Attributes:
        count: how many there may be.
    """

    count: int

    def start(self, slot: int) -> None:
        """Start a worker, also in place of one that died."""

    def send(self, slot: int, unit: int) -> None:
        """Give a unit to a worker that is ready and has none."""

    def wait(self) -> list[tuple[int, Event]]:
        """Wait until workers have something to say, and return it with their numbers."""

    def close(self) -> None:
        """End all workers at once."""


def _prepare(work: Work, slot: int) -> UnitRunner | Unable:
    try:
        return UnitRunner(work, slot)
    except FFPlugError as error:
        return Unable(error)
    except Exception as error:
        return Unable(ConfigError(f"a worker cannot start: {one_line(error)}"))


class ThisProcess:
    """One worker, which is this process.

    Args:
        work: the work.
    """

    count = 1

    def __init__(self, work: Work) -> None:
        self.work = work
        self._unit: int | None = None

    def start(self, slot: int) -> None:  # noqa: D102
        self._run = UnitRunner(self.work, slot)

    def send(self, slot: int, unit: int) -> None:  # noqa: D102
        self._unit = unit

    def wait(self) -> list[tuple[int, Event]]:  # noqa: D102
        if self._unit is None:
            return [(0, Ready())]
        return [(0, Finished(self._run(self._unit)))]

    def close(self) -> None:  # noqa: D102
        pass


class LocalProcesses:
    """Worker processes on this machine.

    Args:
        work: the work.
        count: how many.
    """

    def __init__(self, work: Work, count: int) -> None:
        self.work = work
        self.count = count
        # Fresh interpreters: forking a process that runs threads (torch's, OpenCV's) can hang.
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, tuple[BaseProcess, Connection]] = {}

    def start(self, slot: int) -> None:  # noqa: D102
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self.work, slot), daemon=True)
        with _environment(dict.fromkeys(THREAD_VARIABLES, str(self.work.threads))):
            process.start()
        theirs.close()  # so that the pipe ends when the worker does
        self._workers[slot] = process, ours

    def send(self, slot: int, unit: int) -> None:  # noqa: D102
        with contextlib.suppress(OSError):  # a dead worker is found by waiting for it
            self._workers[slot][1].send(unit)

    def wait(self) -> list[tuple[int, Event]]:  # noqa: D102
        slots = {connection: slot for slot, (_, connection) in self._workers.items()}
        return [(slots[connection], self._receive(slots[connection])) for connection in wait([*slots])]

    def _receive(self, slot: int) -> Event:
        process, connection = self._workers[slot]
        try:
            return connection.recv()
        except (EOFError, OSError):
            del self._workers[slot]
            connection.close()
            process.join(5)
            process.kill()
            code = process.exitcode
            return Died(f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit {code}")

    def close(self) -> None:  # noqa: D102
        for process, connection in self._workers.values():
            connection.close()
            process.kill()
        for process, _ in self._workers.values():
            process.join()
        self._workers.clear()


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables that the user has not set, for processes that start in the block."""
    added = {key: value for key, value in variables.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            del os.environ[key]


def _serve(connection: Connection, work: Work, slot: int) -> None:
    """Be a local worker: do the units that come, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends its workers
    threading.Thread(target=_follow_parent, daemon=True).start()
    run = _prepare(work, slot)
    try:
        connection.send(run if isinstance(run, Unable) else Ready())
        while isinstance(run, UnitRunner):
            connection.send(Finished(run(connection.recv())))
    except (EOFError, OSError):
        return


def _follow_parent() -> None:
    """End with the parent, however it ends: two jobs would else run after a restart."""
    multiprocessing.parent_process().join()
    os._exit(1)


class RayActor:
    """A worker on a Ray cluster; Ray makes it an actor.

    Args:
        work: the work.
    """

    def __init__(self, work: Work) -> None:
        self._work = work

    def start(self) -> Event:
        """Get ready."""
        run = _prepare(self._work, 0)  # an actor sees no GPU but its own
        if isinstance(run, Unable):
            return run
        self._run = run
        return Ready()

    def run(self, unit: int) -> Event:
        """Do a unit."""
        return Finished(self._run(unit))


class RayWorkers:
    """Actors on a Ray cluster, which must see the same folders as this machine.

    Args:
        work: the work.
        count: how many; None for one on each GPU if the work can use GPUs and there are some, else one on each core.
        address: of a cluster, as ``auto`` or ``10.0.0.1:6379``; None takes ``RAY_ADDRESS``, or starts Ray here for
            the time of the job.

    Raises:
        PluginError: Ray is not installed.
        ConfigError: the cluster cannot be reached.
    """

    def __init__(self, work: Work, count: int | None, address: str | None) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
        except ImportError as error:
            raise PluginError(RAY_HINT) from error
        self._ray = ray
        self._connect(address or os.environ.get("RAY_ADDRESS"), count and count * work.threads)
        cluster = ray.cluster_resources()
        on_gpu = str(work.device).startswith("cuda") or (work.device is None and cluster.get("GPU", 0) >= 1)
        room = cluster.get("GPU", 1) if on_gpu else cluster.get("CPU", 1) / work.threads
        self.count = count or max(1, int(room))
        variables = {key: value for key, value in os.environ.items() if key.startswith("FFPLUG_")}
        variables |= dict.fromkeys(THREAD_VARIABLES, str(work.threads))
        self._actor = ray.remote(
            num_cpus=work.threads, num_gpus=int(on_gpu), max_restarts=0, runtime_env={"env_vars": variables}
        )(RayActor)
        self._work = ray.put(work)
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}

    def _connect(self, address: str | None, cores: int | None) -> None:
        # Of Ray's own, started for this job: no dashboard, and little shared memory, for only the work goes through it.
        own = {} if address else {"include_dashboard": False, "object_store_memory": 100 << 20, "num_cpus": cores}
        try:
            self._ray.init(address=address or "local", logging_level=logging.ERROR, **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"no Ray at {address or 'this machine'}: {one_line(error)}") from error

    def start(self, slot: int) -> None:  # noqa: D102
        self._actors[slot] = self._actor.remote(self._work)
        self._pending[self._actors[slot].start.remote()] = slot

    def send(self, slot: int, unit: int) -> None:  # noqa: D102
        self._pending[self._actors[slot].run.remote(unit)] = slot

    def wait(self) -> list[tuple[int, Event]]:  # noqa: D102
        ready, _ = self._ray.wait([*self._pending], num_returns=1)
        return [(self._pending.pop(answer), self._get(answer)) for answer in ready]

    def _get(self, answer: Any) -> Event:
        try:
            return self._ray.get(answer)
        except self._ray.exceptions.RayActorError as error:
            return Died(str(error).strip().splitlines()[0])

    def close(self) -> None:  # noqa: D102
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()
