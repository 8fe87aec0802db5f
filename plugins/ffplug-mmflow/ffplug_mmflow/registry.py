"""The plugin's registries: children of MMEngine's roots and of FFPlug's own, scope ``ffplug_mmflow``."""

from mmengine.registry import MODELS as _MODELS
from mmengine.registry import Registry

from ffplug.registry import CONVERTERS as _CONVERTERS
from ffplug.registry import MIGRATIONS as _MIGRATIONS

MODELS = Registry("model", parent=_MODELS, scope="ffplug_mmflow", locations=["ffplug_mmflow.models"])
CONVERTERS = Registry("converter", parent=_CONVERTERS, scope="ffplug_mmflow", locations=["ffplug_mmflow.converters"])
MIGRATIONS = Registry("migration", parent=_MIGRATIONS, scope="ffplug_mmflow", locations=["ffplug_mmflow.migration"])
