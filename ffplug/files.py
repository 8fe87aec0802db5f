"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ffplug.errors import DataError

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file may not grow further",
}
_LEFT = 1 << 14
"""Bytes that are free on a disk which takes nothing more."""


def lack_of_room(error: BaseException, path: str | os.PathLike) -> str | None:
    """Say why something could not be written, where that was for want of room.

    Args:
        error: what a writer raised. Some libraries drop the system's reason (NumPy tells how many values it wrote);
            then the room that is left decides, so this is to be asked before anything is removed.
        path: of the file, or of its folder.

    Returns:
        A part of a sentence, or None where the reason is another one.
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        return _FULL[error.errno]
    if isinstance(error, (OSError, RuntimeError)) and shutil.disk_usage(Path(path).parent).free < _LEFT:
        return _FULL[errno.ENOSPC]
    return None


@contextmanager
def atomic_path(path: str | os.PathLike, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block ends, and vanishes if it fails.

    A reader sees the old file or the new one, whatever kills the writer.

    Args:
        path: the file; its folder is made.
        sync: wait until the content is on the disk, so that it also outlives the machine's fall. Data that are written
            by the thousand and can be made again do without.

    Raises:
        DataError: there is no room for the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if sync:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except Exception as error:
        reason = lack_of_room(error, path)
        if reason is None:
            raise
        raise DataError(f"{path}: cannot be written: {reason}; make room and give the same command again") from error
    finally:
        temporary.unlink(missing_ok=True)
