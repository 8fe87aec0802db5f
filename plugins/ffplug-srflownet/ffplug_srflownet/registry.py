"""The plugin's registries, scope ``ffplug_srflownet``; their locations are imported when a type is first looked up."""

from mmengine.registry import MODELS as _MODELS
from mmengine.registry import Registry


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope="ffplug_srflownet", locations=list(locations))


MODELS = _child("model", _MODELS, "ffplug_srflownet.losses")
