"""The plugin's registries: children of MMEngine's roots, scope ``ffplug_samflow``."""

from mmengine.registry import MODELS as _MODELS
from mmengine.registry import Registry

from ffplug.registry import CONVERTERS as _CONVERTERS

MODELS = Registry("model", parent=_MODELS, scope="ffplug_samflow", locations=["ffplug_samflow.models"])
CONVERTERS = Registry("converter", parent=_CONVERTERS, scope="ffplug_samflow", locations=["ffplug_samflow.converters"])
