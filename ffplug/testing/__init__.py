"""What a plugin's own tests run: conformance of the plugin and of its ops, and the fill rule of parity tests."""

from __future__ import annotations

import importlib
from typing import Any

_DOORS = {"OpConformance": "ffplug.testing.ops", "PluginConformance": "ffplug.testing.conformance"}

__all__ = ["OpConformance", "PluginConformance"]


def __getattr__(name: str) -> Any:
    if name in _DOORS:
        return getattr(importlib.import_module(_DOORS[name]), name)
    raise AttributeError(f"module 'ffplug.testing' has no attribute {name!r}")
