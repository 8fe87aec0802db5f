"""MVFlow on FlyingThings3D, each pair encoded while it is read; RAFT's schedule."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.things import *
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

    from .mvflow import *
    from .online import _encode, _validate

train_dataloader["dataset"]["pipeline"][-1:] = _encode
val_dataloader["dataset"].update(pipeline=_validate)

train_dataloader["batch_size"] = 6
optim_wrapper["optimizer"].update(lr=1.25e-4, weight_decay=1e-4)
param_scheduler.update(eta_max=1.25e-4, total_steps=100_100)
train_cfg.update(max_iters=100_000)
model.update(freeze_batch_norm=True)
