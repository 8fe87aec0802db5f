"""Running the toy: in this process, or in one of its own through the command line."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import warm

from ffplug.engine.run import load_run_config

TESTS = Path(__file__).parents[1]
TOOLS = TESTS.parent / "tools"
CONFIG = Path(__file__).with_name("configs") / "train_toy.py"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
    "PYTHON": sys.executable,
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
_names = itertools.count()


def toy_config(work_dir, *options):
    """The toy's config; MMEngine keeps logs and message hubs by name, so each run gets a name of its own."""
    name = f"experiment_name=toy{os.getpid()}_{next(_names)}"
    return load_run_config(CONFIG, (*options, name), work_dir, launcher="none")


def command(tool, *arguments):
    return [sys.executable, str(TOOLS / f"{tool}.py"), *map(str, arguments)]


def run(arguments, environment=None, **kwargs):
    """Run to the end what no one is going to kill; Python, also that of the launchers, starts warm."""
    python = warm.python()
    return subprocess.run(
        [python if argument == sys.executable else str(argument) for argument in arguments],
        env={**ENVIRONMENT, "PYTHON": python, "PYTHON_EXEC": python, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=240,
        **kwargs,
    )


@contextmanager
def started(arguments, log, cwd=None, **environment):
    """A process with its children in a session of its own, which is over when the block ends."""
    with open(log, "a") as file:
        process = subprocess.Popen(
            list(map(str, arguments)),
            env={**ENVIRONMENT, **environment},
            stdout=file,
            stderr=file,
            start_new_session=True,
            cwd=cwd,
        )
        try:
            yield process
        finally:
            for pid in [process.pid, *descendants(process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def descendants(pid):
    """The processes that ``pid`` started, and theirs; parents come first."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def workers(pid):
    """The ranks that a torchrun started on its machine, in their order."""
    found = []
    for child in descendants(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            environment = dict(
                line.split("=", 1) for line in Path(f"/proc/{child}/environ").read_text().split("\0") if "=" in line
            )
            if "RANK" in environment:
                found.append((int(environment["RANK"]), child))
    return [child for _, child in sorted(found)]


def wait_for(condition, process, log, seconds=120):
    """Wait until something is so, while a process runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, Path(log).read_text()
        time.sleep(0.02)


def reached(work_dir, iteration):
    """Whether a run recorded this iteration."""
    return (Path(work_dir) / "losses.jsonl").is_file() and iteration in records(work_dir)


def records(work_dir, name="losses"):
    """The recorder's lines by iteration; of one that was done twice, all."""
    found = {}
    for line in (Path(work_dir) / f"{name}.jsonl").read_text().splitlines():
        iteration, *values = json.loads(line)
        found.setdefault(iteration, []).append(values)
    return found
