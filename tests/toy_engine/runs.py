"""Running the toy: in this process, or in one of its own through the command line."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

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


def run(arguments, **kwargs):
    return subprocess.run(
        list(map(str, arguments)), env=ENVIRONMENT, capture_output=True, text=True, timeout=120, **kwargs
    )


def records(work_dir, name="losses"):
    """The recorder's lines by iteration; of one that was done twice, all."""
    found = {}
    for line in (Path(work_dir) / f"{name}.jsonl").read_text().splitlines():
        iteration, *values = json.loads(line)
        found.setdefault(iteration, []).append(values)
    return found
