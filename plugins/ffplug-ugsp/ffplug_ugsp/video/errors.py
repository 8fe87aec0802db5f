"""What FFmpeg says when it cannot write, in words that help."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from ffplug.errors import DataError

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your quota is used up",
    errno.EFBIG: "the file may not grow further",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the errors of writing a file into one that says what to do; half a file is removed.

    Raises:
        DataError: the disk is full, or the file cannot be written.
    """
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        reason = _FULL.get(error.errno, error.strerror or str(error))
        raise DataError(f"{path}: cannot be written: {reason}; make room and give the same command again") from error
