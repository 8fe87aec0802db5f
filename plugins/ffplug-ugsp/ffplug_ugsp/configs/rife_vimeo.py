"""RIFE as published: four processes with 16 crops each, 300 epochs of 761 steps."""

from mmengine.config import read_base

with read_base():
    from .rife import *
    from .vimeo import *

train_dataloader.update(batch_size=16)
optim_wrapper["optimizer"].update(lr=3e-4)
param_scheduler[1].update(eta_min=3e-6, end=228_300)
train_cfg.update(max_iters=228_300, val_interval=7610)
