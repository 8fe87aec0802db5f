"""Iterators that run ahead of who reads them, each in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import Any, TypeVar

Item = TypeVar("Item")
_END = object()


def prefetch(items: Generator[Item], depth: int) -> Generator[Item]:
    """Yield items in their order, made by a thread while the caller works on those before.

    What goes wrong in the thread is raised where its item would come. Closing this generator stops and joins the
    thread, which closes ``items`` itself.

    Args:
        items: makes the items.
        depth: how many finished ones may wait, beside one in the making; 0 starts no thread.
    """
    if not depth:
        yield from items
        return
    made: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    room, stopped = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        error = None
        try:
            for item in items:
                room.acquire()
                if stopped.is_set():
                    break
                made.put((item, None))
        except BaseException as raised:
            error = raised
        finally:
            items.close()
            made.put((_END, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            room.release()
            yield item
            del item
    finally:
        stopped.set()
        room.release()
        thread.join()
