"""What FFmpeg says when it cannot write, in words that help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from ffplug.errors import DataError
from ffplug.files import lack_of_room


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the errors of writing a file into one that says what to do.

    Raises:
        DataError: the disk is full, or the file cannot be written.
    """
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        reason = lack_of_room(error, path)
        hint = "; make room and give the same command again" if reason else ""
        raise DataError(f"{path}: cannot be written: {reason or error.strerror or error}{hint}") from error
