"""A narrow teacher of action units, on procedural faces."""

from mmengine.config import read_base

with read_base():
    from .narrow import *

model["head"]["tasks"] = dict(au=12)
model["losses"] = [dict(type="ffplug_fpnmaa.MaskedBCE")]
train_dataloader["dataset"].update(tasks="au")
val_dataloader["dataset"].update(tasks="au")
