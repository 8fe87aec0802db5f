"""The plugin's registries, scope ``ffplug_face``; their locations are imported when a type is first looked up."""

from mmengine.registry import MODELS as _MODELS
from mmengine.registry import Registry


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope="ffplug_face", locations=list(locations))


_MICRO = [f"ffplug_face.micro_expression.{module}" for module in ("classifiers", "htnet")]

MODELS = _child("model", _MODELS, "ffplug_face.models", *_MICRO)
