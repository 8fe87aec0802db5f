"""GMA on FlyingThings3D: the published settings for one GPU with mixed precision."""

from mmengine.config import read_base

with read_base():
    from ..data.things import *
    from ..models.gma import *
    from ..runtime import *
    from ..schedule import *

train_dataloader["batch_size"] = 6
optim_wrapper["optimizer"].update(lr=0.000125, weight_decay=0.0001)
param_scheduler.update(eta_max=0.000125, total_steps=120_100)
train_cfg.update(max_iters=120_000)
