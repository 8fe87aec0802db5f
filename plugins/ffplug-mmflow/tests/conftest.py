"""What the tests of this plugin share."""

import os
import subprocess
import sys

import pytest

collect_ignore = ["mmflow_configs"]  # not ours, and some are named as tests are


@pytest.fixture
def cli():
    """Run the ffplug command in a process of its own."""

    def run(*arguments, cwd, **environment):
        command = [sys.executable, "-m", "ffplug.cli", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)

    return run
