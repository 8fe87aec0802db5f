"""The released Arena weights, trained on for 100 steps on procedural scenes.

Fetch them first: ``ffplug weights pull stss_arena``.
"""

from mmengine.config import read_base

with read_base():
    from .stss_procedural import *

model["pretrained"] = "stss_arena"
train_cfg.update(max_iters=100, val_interval=50)
default_hooks["checkpoint"].update(interval=50)
default_hooks["logger"].update(interval=10)
