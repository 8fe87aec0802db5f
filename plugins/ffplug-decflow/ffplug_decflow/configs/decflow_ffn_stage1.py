"""DecFlow on FacialFlowNet, stage 1: everything but the semantic encoder trains.

The published schedule: 10,000 steps of 6 crops, from GMA's Sintel weights (``load_from``, see README).
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

    from .decflow import *
    from .ffn import *

model["context_encoder"]["semantic"].update(checkpoint="dad_3dnet")
model["test_iterations"] = 12

train_dataloader["batch_size"] = 6
optim_wrapper["optimizer"].update(lr=1.25e-4, weight_decay=1e-5)
param_scheduler.update(eta_max=1.25e-4, total_steps=10_100)
train_cfg.update(max_iters=10_000, val_interval=1000)
default_hooks["checkpoint"].update(interval=1000)
