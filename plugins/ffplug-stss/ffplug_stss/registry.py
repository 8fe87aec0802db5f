"""The plugin's registries, scope ``ffplug_stss``; their locations are imported when a type is first looked up."""

from mmengine.registry import DATASETS as _DATASETS
from mmengine.registry import HOOKS as _HOOKS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import TRANSFORMS as _TRANSFORMS
from mmengine.registry import Registry

from ffplug.registry import CONVERTERS as _CONVERTERS
from ffplug.registry import LAYOUTS as _LAYOUTS
from ffplug.registry import OPS as _OPS


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope="ffplug_stss", locations=list(locations))


MODELS = _child("model", _MODELS, "ffplug_stss.models", "ffplug_stss.losses")
DATASETS = _child("dataset", _DATASETS, "ffplug_stss.datasets")
TRANSFORMS = _child("transform", _TRANSFORMS, "ffplug_stss.datasets")
HOOKS = _child("hook", _HOOKS, "ffplug_stss.liveliness")
LAYOUTS = _child("layout", _LAYOUTS, "ffplug_stss.datasets")
OPS = _child("op", _OPS, "ffplug_stss.ops")
CONVERTERS = _child("converter", _CONVERTERS, "ffplug_stss.converters")
