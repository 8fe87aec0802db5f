"""``python -m ffplug.cli``."""

from ffplug.cli import main

main()
