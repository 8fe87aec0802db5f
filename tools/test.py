"""Thin door to ``ffplug test``."""

import sys

from ffplug.cli import run
from ffplug.cli.test import command

if __name__ == "__main__":
    sys.exit(run(command, sys.argv[1:], "test.py"))
