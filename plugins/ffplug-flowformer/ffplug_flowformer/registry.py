"""The plugin's registries: children of MMEngine's roots, scope ``ffplug_flowformer``."""

from mmengine.registry import MODELS as _MODELS
from mmengine.registry import Registry

from ffplug.registry import CONVERTERS as _CONVERTERS

MODELS = Registry("model", parent=_MODELS, scope="ffplug_flowformer", locations=["ffplug_flowformer.models"])
CONVERTERS = Registry(
    "converter", parent=_CONVERTERS, scope="ffplug_flowformer", locations=["ffplug_flowformer.converters"]
)
