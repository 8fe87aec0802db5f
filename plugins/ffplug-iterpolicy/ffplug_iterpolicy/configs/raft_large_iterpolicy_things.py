"""The policy on RAFT's Things weights: FlyingThings3D, 40,000 steps of batch 6, crop 400×720."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.things import *

    from .raft_large_iterpolicy import *
    from .training import *

train_dataloader.update(batch_size=6)
param_scheduler.update(total_steps=40_100)
train_cfg.update(max_iters=40_000)
model.update(freeze_batch_norm=True)
