"""What the tests of this plugin share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ffplug.testing import golden

collect_ignore = ["mmflow_configs"]  # not ours, and some are named as tests are
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def cli():
    """Run the ffplug command in a process of its own."""

    def run(*arguments, cwd, **environment):
        python = os.environ.get("WARM_PYTHON", sys.executable)
        command = [python, "-m", "ffplug.cli", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def golden_case():
    """What MMFlow 0.5.2 gave, by the name of the case."""
    return lambda source: np.load(GOLDEN / source / "case1.npz")


@pytest.fixture(scope="session")
def mmflow_state():
    """The state dict that MMFlow had when it made the golden outputs, by the name of the case."""
    scales = json.loads((GOLDEN / "scales.json").read_text())

    def fill(source):
        state = {}
        for key, shape in json.loads((GOLDEN / source / "keys.json").read_text()).items():
            if key.endswith(("num_batches_tracked", "rel_ind")):
                state[key] = torch.zeros(shape, dtype=torch.int64)
            else:
                factor = next((value for end, value in scales.items() if key.endswith(end)), 1)
                state[key] = torch.from_numpy(golden.values(key, tuple(shape))) * factor
        return state

    return fill


@pytest.fixture(scope="session")
def flow_difference(golden_case):
    """The largest difference in pixels between MMFlow's flow and that of a function of two frames."""

    def compare(source, predict):
        case = golden_case(source)
        frames = [golden.image(int(seed), (*case["size"], 3)).astype(np.uint8) for seed in case["seeds"]]
        first, second = (torch.from_numpy(frame).permute(2, 0, 1)[None] for frame in frames)
        flow = predict(first, second, int(case["iterations"]))["flow"][0].permute(1, 2, 0)
        step = int(case["step"])
        return np.abs(flow[::step, ::step].numpy() - case["flow"]).max()

    return compare
