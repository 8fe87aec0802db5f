"""A narrow teacher of expressions, on procedural faces."""

from mmengine.config import read_base

with read_base():
    from .narrow import *

model["head"]["tasks"] = dict(expr=7)
model["losses"] = [dict(type="ffplug_fpnmaa.MaskedCE")]
train_dataloader["dataset"].update(tasks="expr")
val_dataloader["dataset"].update(tasks="expr")
