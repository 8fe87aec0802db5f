"""A narrow teacher of valence and arousal, on procedural faces."""

from mmengine.config import read_base

with read_base():
    from .narrow import *

model["head"]["tasks"] = dict(va=2)
model["losses"] = [dict(type="ffplug_fpnmaa.MaskedMSE")]
train_dataloader["dataset"].update(tasks="va")
val_dataloader["dataset"].update(tasks="va")
