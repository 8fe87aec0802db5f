"""What the commands that do bulk jobs share: options, progress, and what is said at the end."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import click

LOG_EVERY = 10.0
"""Seconds between lines of progress where there is no terminal."""
NAMED = 50
"""Failures that are named at the end; all are told when they happen."""

OPTIONS = (
    click.option("--shard", metavar="I/N", help="Do the I-th of N shares, as 1/8 on the first of 8 machines."),
    click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True),
    click.option("--workers", type=int, default=0, help="Processes, or actors on Ray; 0 works in this process."),
    click.option("--ray-address", help="A Ray cluster, as auto or HOST:PORT; else Ray runs here while the job does."),
    click.option("--retries", default=3, show_default=True, help="How often work is redone whose process died."),
    click.option("--fail-fast", is_flag=True, help="Stop at the first failure; else the others go on."),
)


def bulk_options(command: Callable) -> Callable:
    """Add the options of a bulk job to a command."""
    return functools.reduce(lambda decorated, option: option(decorated), reversed(OPTIONS), command)


class ConsoleReporter:
    """Shows progress: a bar on a terminal, elsewhere a line now and then. A context manager.

    Args:
        noun: what is counted.
    """

    def __init__(self, noun: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.noun = noun
        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._failed = 0

    def __enter__(self) -> ConsoleReporter:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def start(self, total: int, done: int) -> None:
        """Begin to count."""
        self.total, self.done = total, done
        self._begun: float | None = None
        self._task = self._bar.add_task(self.noun, total=total, completed=done)
        if done:
            self.note(f"{done} of {total} {self.noun} were done before")

    def advance(self, count: int) -> None:
        """Count on."""
        self.done += count
        self._bar.update(self._task, completed=self.done)
        now = time.monotonic()
        if self._begun is None:  # what comes before the first result, such as loading a model, says nothing of the rate
            self._begun = self._told = now
            self._first = self.done
        elif not self._console.is_terminal and now - self._told >= LOG_EVERY:
            self._told = now
            rate = (self.done - self._first) / (now - self._begun)
            left = f", {duration((self.total - self.done) / rate)} left" if rate else ""
            failed = f", {self._failed} failed" if self._failed else ""
            self.note(f"{self.done} of {self.total} {self.noun}, {rate:.3g} per second{left}{failed}")

    def fail(self, failure: Any) -> None:
        """Tell a failure."""
        self._failed += 1
        self.note(f"failed: {failure}")

    def note(self, text: str) -> None:
        """Write a line, with the time where it goes into a log."""
        stamp = "" if self._console.is_terminal else time.strftime("%H:%M:%S ")
        self._console.print(stamp + text, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """A time such as ``2 h 05 min``, ``14 min`` or ``8 s``."""
    minutes, hours = round(seconds / 60), int(seconds // 3600)
    if hours:
        return f"{hours} h {minutes - 60 * hours:02d} min"
    return f"{minutes} min" if seconds >= 60 else f"{seconds:.0f} s"


def conclude(report: Any, work: Any, where: Any, seconds: float) -> int:
    """Say what became of a shard.

    Args:
        report: of :func:`ffplug.bulk.run_job`.
        work: what was done.
        where: where the results are.
        seconds: how long it took.

    Returns:
        Exit status: 1 if something failed.
    """
    if report.failures:
        click.echo(f"{len(report.failures)} failed:", err=True)
        for failure in report.failures[:NAMED]:
            click.echo(f"  {failure}", err=True)
        if len(report.failures) > NAMED:
            click.echo(f"  and {len(report.failures) - NAMED} more, named above", err=True)
        click.echo("the same command does them again, and nothing else", err=True)
        return 1
    total = sum(map(work.size, range(len(work))))
    if report.remaining:
        click.echo(f"{where}: this shard is done, {seconds:.1f} s; {report.remaining} of {len(work)} parts remain")
    elif report.done:
        click.echo(f"{where}: complete, {total} {work.noun}, {seconds:.1f} s")
    else:
        click.echo(f"{where}: complete already, {total} {work.noun}, nothing to do")
    return 0
