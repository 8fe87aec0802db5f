"""The published teacher of action units: Aff-Wild2 alone; about 54,000 steps."""

from mmengine.config import read_base

with read_base():
    from .affwild2 import *
    from .fpn_maa_au import *

train_dataloader["dataset"].update(tasks="au")
val_dataloader["dataset"].update(tasks="au")
optim_wrapper = dict(
    type="ffplug.AmpOptimWrapper", optimizer=dict(type="SGD", lr=3e-4, momentum=0.9, weight_decay=1e-4)
)
train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=54_000, val_interval=1200)
default_hooks["checkpoint"].update(interval=1200)
