"""The plugin's registries, scope ``ffplug_latentface``; their locations are imported when a type is first looked up."""

from mmengine.registry import DATASETS as _DATASETS
from mmengine.registry import METRICS as _METRICS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import TRANSFORMS as _TRANSFORMS
from mmengine.registry import Registry

from ffplug.registry import CONVERTERS as _CONVERTERS
from ffplug.registry import LAYOUTS as _LAYOUTS


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope="ffplug_latentface", locations=list(locations))


MODELS = _child("model", _MODELS, "ffplug_latentface.models", "ffplug_latentface.losses")
DATASETS = _child("dataset", _DATASETS, "ffplug_latentface.datasets")
TRANSFORMS = _child("transform", _TRANSFORMS, "ffplug_latentface.datasets")
LAYOUTS = _child("layout", _LAYOUTS, "ffplug_latentface.datasets")
METRICS = _child("metric", _METRICS, "ffplug_latentface.evaluation")
CONVERTERS = _child("converter", _CONVERTERS, "ffplug_latentface.converters")
