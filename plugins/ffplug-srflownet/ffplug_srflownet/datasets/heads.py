"""The head models that Gaussians are bound to, made once a process."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from ffplug_face.models import HeadModel

from ffplug.registry import MODELS


def get_head(config: Mapping[str, Any]) -> HeadModel:
    """The head model of a config (``dict(type="ffplug_face.OpenHead")``)."""
    return _build(json.dumps(config, sort_keys=True))


@functools.lru_cache(maxsize=4)
def _build(config: str) -> HeadModel:
    return MODELS.build(json.loads(config)).eval()
