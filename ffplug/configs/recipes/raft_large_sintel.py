"""RAFT large on the Sintel mixture: the published settings for one GPU with mixed precision."""

from mmengine.config import read_base

with read_base():
    from ..data.sintel_mix import *
    from ..models.raft_large import *
    from ..runtime import *
    from ..schedule import *

train_dataloader["batch_size"] = 5
optim_wrapper["optimizer"].update(lr=0.0001, weight_decay=1e-05)
param_scheduler.update(eta_max=0.0001, total_steps=120_100)
train_cfg.update(max_iters=120_000)
model["losses"][0].update(gamma=0.85)
model.update(freeze_batch_norm=True)
