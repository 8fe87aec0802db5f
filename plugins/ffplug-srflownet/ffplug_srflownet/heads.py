"""The heads that Gaussians are bound to: models made once a process, and what their sequences are drawn from."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from ffplug_face.models import HeadModel
from ffplug_face.sequences import SequenceOptions

from ffplug.errors import ConfigError, did_you_mean
from ffplug.registry import MODELS


def get_head(config: Mapping[str, Any]) -> HeadModel:
    """The head model of a config (``dict(type="ffplug_face.OpenHead")``)."""
    return _build(json.dumps(config, sort_keys=True))


@functools.lru_cache(maxsize=4)
def _build(config: str) -> HeadModel:
    return MODELS.build(json.loads(config)).eval()


def sequence_options(options: Mapping[str, Any], **more: Any) -> SequenceOptions:
    """The options of face sequences, of which a config names some.

    Raises:
        ConfigError: there is no such option.
    """
    known = SequenceOptions.__dataclass_fields__
    for name in options:
        if name not in known or name in more:
            raise ConfigError(f"options: {name!r} is none to set{did_you_mean(name, set(known) - set(more))}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return SequenceOptions(**values, **more)
