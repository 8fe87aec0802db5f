"""The plugin's registries, scope ``ffplug_fpnmaa``; their locations are imported when a type is first looked up."""

from mmengine.registry import DATA_SAMPLERS as _DATA_SAMPLERS
from mmengine.registry import DATASETS as _DATASETS
from mmengine.registry import METRICS as _METRICS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import TRANSFORMS as _TRANSFORMS
from mmengine.registry import Registry

from ffplug.registry import CONVERTERS as _CONVERTERS
from ffplug.registry import LAYOUTS as _LAYOUTS
from ffplug.registry import PREPARERS as _PREPARERS


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope="ffplug_fpnmaa", locations=list(locations))


MODELS = _child("model", _MODELS, "ffplug_fpnmaa.models", "ffplug_fpnmaa.losses")
DATASETS = _child("dataset", _DATASETS, "ffplug_fpnmaa.datasets")
DATA_SAMPLERS = _child("data sampler", _DATA_SAMPLERS, "ffplug_fpnmaa.datasets")
TRANSFORMS = _child("transform", _TRANSFORMS, "ffplug_fpnmaa.datasets")
LAYOUTS = _child("layout", _LAYOUTS, "ffplug_fpnmaa.datasets")
METRICS = _child("metric", _METRICS, "ffplug_fpnmaa.evaluation")
PREPARERS = _child("preparer", _PREPARERS, "ffplug_fpnmaa.distillation")
CONVERTERS = _child("converter", _CONVERTERS, "ffplug_fpnmaa.converters")
