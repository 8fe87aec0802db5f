"""The plugin's registries, scope ``ffplug_ugsp``; their locations are imported when a type is first looked up."""

from mmengine.registry import DATASETS as _DATASETS
from mmengine.registry import HOOKS as _HOOKS
from mmengine.registry import METRICS as _METRICS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import TRANSFORMS as _TRANSFORMS
from mmengine.registry import Registry

from ffplug.registry import CONVERTERS as _CONVERTERS
from ffplug.registry import LAYOUTS as _LAYOUTS


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope="ffplug_ugsp", locations=list(locations))


MODELS = _child("model", _MODELS, "ffplug_ugsp.models", "ffplug_ugsp.losses")
CONVERTERS = _child("converter", _CONVERTERS, "ffplug_ugsp.converters")
HOOKS = _child("hook", _HOOKS, "ffplug_ugsp.engine")
DATASETS = _child("dataset", _DATASETS, "ffplug_ugsp.datasets")
TRANSFORMS = _child("transform", _TRANSFORMS, "ffplug_ugsp.datasets")
LAYOUTS = _child("layout", _LAYOUTS, "ffplug_ugsp.datasets")
METRICS = _child("metric", _METRICS, "ffplug_ugsp.evaluation")
