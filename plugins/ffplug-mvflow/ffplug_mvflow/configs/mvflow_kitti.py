"""MVFlow on KITTI 2015, each pair encoded while it is read; RAFT's schedule."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.kitti import *
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

    from .mvflow import *
    from .online import _encode, _validate

train_dataloader["dataset"]["pipeline"][-1:] = _encode
val_dataloader["dataset"].update(pipeline=_validate)

train_dataloader["batch_size"] = 6
optim_wrapper["optimizer"].update(lr=1e-4, weight_decay=1e-5)
param_scheduler.update(eta_max=1e-4, total_steps=50_100)
train_cfg.update(max_iters=50_000)
model.update(freeze_batch_norm=True)
for _loss in model["losses"]:
    _loss.update(gamma=0.85)
