"""The cache of compiled kernels: built once per source, flags and machine kind, whatever the number of processes."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from filelock import FileLock

from ffplug.errors import FFPlugError

CSRC = Path(__file__).parent / "csrc"


class BuildError(FFPlugError):
    """A kernel could not be compiled or loaded; the message ends with what the compiler said last."""


@cache
def logger() -> logging.Logger:
    """The log of the ops; it speaks on standard error unless the program has set up logging itself."""
    log = logging.getLogger("ffplug.ops")
    if not log.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("ffplug: %(message)s"))
        log.addHandler(handler)
        log.propagate = False
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)
    return log


@cache
def cache_folder() -> Path:
    """Where compiled kernels are kept: ``FFPLUG_CACHE``, else ``ffplug`` in the user's cache folder.

    A folder that others can write to would let them slip code into this process, so it must be the user's own; where
    it is not, or can't be written, a private folder that lives as long as the process takes its place.
    """
    root = os.environ.get("FFPLUG_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ffplug"
    folder = Path(root).expanduser() / "ops"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            raise PermissionError(f"{folder} belongs to, or can be written by, somebody else")
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        logger().warning("Compiled kernels are not kept: %s. FFPLUG_CACHE names another folder for them.", error)
        return Path(tempfile.mkdtemp(prefix="ffplug-ops-"))


def source_text(source: Path, folders: Sequence[Path]) -> str:
    """A source with every header that it includes from ``folders``, for the hash: a changed header builds anew."""
    text = source.read_text()
    headers = {header.name: header for folder in reversed(folders) for header in sorted(folder.glob("*.h"))}
    seen: dict[str, str] = {}

    def collect(part: str) -> None:
        for line in part.splitlines():
            if line.startswith("#include"):
                name = line.split()[1].strip('"<>')
                if name in headers and name not in seen:
                    seen[name] = headers[name].read_text()
                    collect(seen[name])

    collect(text)
    return text + "".join(seen[name] for name in sorted(seen))


def cached(label: str, key: Sequence[str], suffix: str, build: Callable[[Path], str]) -> Path:
    """Return the file that ``build`` makes, from the cache if an equal key has built it before.

    Args:
        label: a short name, part of the file's.
        key: everything that decides the result: source, flags, machine kind.
        suffix: of the file.
        build: writes the file to the path it is given and returns the compiler's name for the log.

    Raises:
        BuildError: ``build`` failed; nothing is left in the cache.
    """
    digest = hashlib.sha256("\0".join(key).encode()).hexdigest()[:24]
    folder = cache_folder()
    target = folder / f"{label}-{digest}{suffix}"
    if target.exists():
        return target
    # Several ranks start at once: one builds, the others wait and then find the file.
    with FileLock(str(target) + ".lock"):
        if target.exists():
            return target
        start = time.perf_counter()
        handle, name = tempfile.mkstemp(prefix=f".{label}-", suffix=suffix, dir=folder)
        os.close(handle)
        try:
            compiler = build(Path(name))
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        logger().info(
            "compiled %s with %s in %.1f s (kept in %s)", label, compiler, time.perf_counter() - start, folder
        )
    return target
