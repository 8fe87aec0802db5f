"""Thin door to ``ffplug infer``."""

import sys

from ffplug.cli import run
from ffplug.cli.infer import command

if __name__ == "__main__":
    sys.exit(run(command, sys.argv[1:], "infer.py"))
