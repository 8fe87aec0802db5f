"""RAFT large on FlyingChairs: the published settings for one GPU with mixed precision."""

from mmengine.config import read_base

with read_base():
    from ..data.chairs import *
    from ..models.raft_large import *
    from ..runtime import *
    from ..schedule import *

train_dataloader["batch_size"] = 8
optim_wrapper["optimizer"].update(lr=0.00025, weight_decay=0.0001)
param_scheduler.update(eta_max=0.00025, total_steps=120_100)
train_cfg.update(max_iters=120_000)
model.update(test_iterations=24)
