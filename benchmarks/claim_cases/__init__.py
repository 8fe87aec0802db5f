"""Claims of the papers, each put to the test in miniature by one module: what ``benchmarks/claims.py`` runs.

A module has ``CLAIM``, ``measure(variant, seed, folder, shared)`` and, where it needs them, ``prepare(folder)`` for
data that all runs share and ``plot(results, path)`` for a picture of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock


@dataclass(frozen=True)
class Metric:
    """A number that every run gives.

    Attributes:
        label: name and unit, as the table shows it.
        better: ``lower`` or ``higher``.
        digits: digits after the point.
    """

    label: str
    better: str = "lower"
    digits: int = 3


@dataclass(frozen=True)
class Comparison:
    """What is claimed of two variants: the first is better than the second.

    Attributes:
        metric: key of the metric.
        variant: key of the variant that is claimed to be better.
        than: key of its ablation.
        published: what the paper tells of it.
    """

    metric: str
    variant: str
    than: str
    published: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim and the runs that test it.

    Attributes:
        title: the sentence that is put to the test.
        source: where it is published.
        setup: data, network and iterations, in Markdown: what it runs on and how small it is.
        variants: key and description of what is trained and measured once for each seed.
        metrics: key and form of the numbers that ``measure`` returns.
        comparisons: what is claimed.
    """

    title: str
    source: str
    setup: str
    variants: dict[str, str]
    metrics: dict[str, Metric]
    comparisons: list[Comparison]


def ffplug(*arguments: object) -> str:
    """Run ``ffplug`` with the arguments, on one thread unless told otherwise, and return what it printed.

    Raises:
        RuntimeError: It failed; the message has the end of what it printed.
    """
    command = [sys.executable, "-m", "ffplug.cli", *map(str, arguments)]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"ffplug {' '.join(command[3:])} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def once(path: Path, make: Callable[[], object]) -> Path:
    """Make a file or folder that several runs share, unless it was made; the others wait meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    done = path.with_name(f"{path.name}.done")
    with FileLock(path.with_name(f"{path.name}.lock")):
        if not done.exists():
            make()
            done.touch()
    return path
