"""The narrow DecFlow on drawn faces."""

from mmengine.config import read_base

with read_base():
    from ffplug_decflow.configs.decflow_small import *

prepare_data = None
custom_hooks = [dict(type="ffplug.NaNGuardHook"), dict(type="ffplug.ProgressHook")]
