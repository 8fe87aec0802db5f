"""The plugin's registries, scope ``ffplug_fpnmaa``; their locations are imported when a type is first looked up."""

from mmengine.registry import MODELS as _MODELS
from mmengine.registry import Registry

from ffplug.registry import CONVERTERS as _CONVERTERS


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope="ffplug_fpnmaa", locations=list(locations))


MODELS = _child("model", _MODELS, "ffplug_fpnmaa.models", "ffplug_fpnmaa.losses")
CONVERTERS = _child("converter", _CONVERTERS, "ffplug_fpnmaa.converters")
