"""The plugin's registries, scope ``ffplug_mvflow``; their locations are imported when a type is first looked up."""

from mmengine.registry import DATASETS as _DATASETS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import TRANSFORMS as _TRANSFORMS
from mmengine.registry import Registry


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope="ffplug_mvflow", locations=list(locations))


MODELS = _child("model", _MODELS, "ffplug_mvflow.models", "ffplug_mvflow.losses")
DATASETS = _child("dataset", _DATASETS, "ffplug_mvflow.datasets")
TRANSFORMS = _child("transform", _TRANSFORMS, "ffplug_mvflow.datasets")
