"""The policy on RAFT's Sintel weights: the Sintel mixture, 40,000 steps of batch 6, crop 368×768."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.sintel_mix import *

    from .raft_large_iterpolicy import *
    from .training import *

train_dataloader.update(batch_size=6)
optim_wrapper["optimizer"].update(weight_decay=1e-5)
param_scheduler.update(total_steps=40_100)
train_cfg.update(max_iters=40_000)
model["losses"][0].update(gamma=0.85)
model.update(freeze_batch_norm=True)
