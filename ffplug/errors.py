"""Errors that tell a user what to do. The command line prints them as one line, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FFPlugError(Exception):
    """Base of every error that is the input's fault: its message names the culprit and what was expected."""


class ConfigError(FFPlugError):
    """A config file, key, type or argument is wrong."""


class PluginError(FFPlugError):
    """A plugin is missing, broken or incompatible."""


class DataError(FFPlugError):
    """A data file or folder is missing, damaged or not what was asked for."""


class DamagedFrameError(DataError):
    """A frame of a video is damaged, and the frames after it can be read all the same."""


class CheckpointError(FFPlugError):
    """A checkpoint is unreadable, unsafe or of another model."""


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the near names among ``candidates``, or an empty string."""
    near = difflib.get_close_matches(word, list(candidates), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
