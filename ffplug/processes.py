"""Processes that know nothing of the one that starts them."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext

PRELOADED = ("torch", "mmengine.runner")


def fresh_processes() -> BaseContext:
    """The context of :mod:`multiprocessing` whose processes inherit no state of this one's, and start quickly.

    Where the system can fork, they are forks of a server that has imported torch once, with the variables that were
    set when the first of them started; elsewhere each is an interpreter of its own.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
