"""The released Arena weights, trained on for 180 steps on procedural scenes: a minute of a CPU.

Fetch them first: ``ffplug weights pull stss_arena``.
"""

from mmengine.config import read_base

with read_base():
    from .stss_small import *

model["network"] = dict(type="ffplug_stss.STSSNet", reshading=dict(type="ffplug_stss.EfficientReshading"))
model["pretrained"] = "stss_arena"
optim_wrapper["optimizer"].update(lr=2e-4, eps=3e-4)
param_scheduler[0].update(end=20)
param_scheduler[1].update(begin=20, T_max=160)
train_cfg.update(max_iters=180, val_interval=60)
default_hooks["checkpoint"].update(interval=60)
default_hooks["logger"].update(interval=10)
