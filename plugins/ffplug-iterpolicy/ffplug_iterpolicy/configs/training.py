"""What the training stages of a policy share: 12 iterations, float32, batch norm and all of the base frozen.

They start from finished weights of their base, at the stage of the same name: ``--cfg-options load_from=WEIGHTS``.
Batch sizes are those of the whole training.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

custom_hooks.append(dict(type="ffplug_iterpolicy.PolicyHook"))
optim_wrapper.update(type="OptimWrapper")
optim_wrapper["optimizer"].update(lr=1.25e-4, weight_decay=1e-4)
param_scheduler.update(eta_max=1.25e-4, total_steps=50_100)
train_cfg.update(max_iters=50_000)
