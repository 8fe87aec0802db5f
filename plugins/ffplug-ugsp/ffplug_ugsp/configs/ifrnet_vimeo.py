"""IFRNet as published: four processes with 6 crops each, 300 epochs of 2137 steps.

Flow in data/vimeo_triplet/flow, that of a strong flow network, allows for one loss more: append
``dict(type="ffplug_ugsp.FlowDistillationLoss")`` to the model's losses.
"""

from mmengine.config import read_base

with read_base():
    from .ifrnet import *
    from .vimeo import *

train_dataloader.update(batch_size=6)
train_dataloader["dataset"].update(split="all")
val_dataloader["dataset"].update(split="test")
optim_wrapper["optimizer"].update(weight_decay=0.0)
param_scheduler = dict(type="CosineAnnealingLR", by_epoch=False, eta_min=1e-5, end=641_100)
train_cfg.update(max_iters=641_100, val_interval=21_370)
