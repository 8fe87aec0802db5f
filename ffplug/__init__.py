"""FFPlug: optical flow, frame interpolation, space-time supersampling and faces, as plugins on MMEngine.

Importing this package imports neither torch nor MMEngine; the doors below load what they need when first used.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from ffplug.version import PLUGIN_API, __version__

# Torch asks the system for fresh memory for every large tensor; in huge pages that costs a fifth. It reads this once,
# at its first large allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_DOORS = {
    "FlowInferencer": "ffplug.apis.inferencer",
    "build_model": "ffplug.apis.models",
    "convert_state_dict": "ffplug.apis.converters",
    "get_model": "ffplug.apis.models",
    "list_models": "ffplug.plugin",
    "load_config": "ffplug.config",
}

__all__ = [
    "PLUGIN_API",
    "FlowInferencer",
    "__version__",
    "build_model",
    "convert_state_dict",
    "get_model",
    "list_models",
    "load_config",
]


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        return getattr(importlib.import_module(_DOORS[name]), name)
    raise AttributeError(f"module 'ffplug' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_DOORS})
