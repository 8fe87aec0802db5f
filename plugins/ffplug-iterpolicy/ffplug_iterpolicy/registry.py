"""The plugin's registries, scope ``ffplug_iterpolicy``; their locations are imported when a type is first looked up."""

from mmengine.registry import HOOKS as _HOOKS
from mmengine.registry import METRICS as _METRICS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import Registry

from ffplug.registry import CONVERTERS as _CONVERTERS


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope="ffplug_iterpolicy", locations=list(locations))


MODELS = _child("model", _MODELS, "ffplug_iterpolicy.models", "ffplug_iterpolicy.losses")
HOOKS = _child("hook", _HOOKS, "ffplug_iterpolicy.engine")
METRICS = _child("metric", _METRICS, "ffplug_iterpolicy.evaluation")
CONVERTERS = _child("converter", _CONVERTERS, "ffplug_iterpolicy.converters")
