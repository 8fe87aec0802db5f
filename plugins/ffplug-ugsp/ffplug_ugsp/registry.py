"""The plugin's registries, scope ``ffplug_ugsp``; their locations are imported when a type is first looked up."""

from mmengine.registry import HOOKS as _HOOKS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import Registry

from ffplug.registry import CONVERTERS as _CONVERTERS


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope="ffplug_ugsp", locations=list(locations))


MODELS = _child("model", _MODELS, "ffplug_ugsp.models", "ffplug_ugsp.losses")
CONVERTERS = _child("converter", _CONVERTERS, "ffplug_ugsp.converters")
HOOKS = _child("hook", _HOOKS, "ffplug_ugsp.engine")
