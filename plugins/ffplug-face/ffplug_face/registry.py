"""The plugin's registries, scope ``ffplug_face``; their locations are imported when a type is first looked up."""

from mmengine.registry import DATASETS as _DATASETS
from mmengine.registry import MODELS as _MODELS
from mmengine.registry import TRANSFORMS as _TRANSFORMS
from mmengine.registry import Registry

from ffplug.registry import LAYOUTS as _LAYOUTS


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope="ffplug_face", locations=list(locations))


_MICRO = [f"ffplug_face.micro_expression.{module}" for module in ("classifiers", "flows", "htnet", "learners")]

MODELS = _child("model", _MODELS, "ffplug_face.models", *_MICRO)
DATASETS = _child("dataset", _DATASETS, "ffplug_face.micro_expression.dataset", "ffplug_face.portraits.videos")
TRANSFORMS = _child("transform", _TRANSFORMS, "ffplug_face.micro_expression.features", "ffplug_face.portraits.videos")
LAYOUTS = _child("layout", _LAYOUTS, "ffplug_face.portraits.videos")
