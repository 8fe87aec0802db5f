"""Thin door to ``ffplug train``."""

import sys

from ffplug.cli import run
from ffplug.cli.train import command

if __name__ == "__main__":
    sys.exit(run(command, sys.argv[1:], "train.py"))
