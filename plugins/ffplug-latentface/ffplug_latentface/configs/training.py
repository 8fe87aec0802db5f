"""What all trainings share: loaders, Adam as published, hooks."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.loaders import *
    from ffplug.configs.runtime import *

custom_hooks = [dict(type="ffplug.NaNGuardHook"), dict(type="ffplug.ProgressHook"), dict(type="ffplug.ReportHook")]
optim_wrapper = dict(type="ffplug.AmpOptimWrapper", optimizer=dict(type="Adam", lr=1e-4, weight_decay=5e-4))
val_cfg = dict(type="ValLoop")
