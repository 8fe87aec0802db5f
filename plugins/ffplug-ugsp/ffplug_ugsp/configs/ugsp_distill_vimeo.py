"""UGSP-distill on Vimeo90K: features and flow are learned from IFRNet's losses, too.

It needs flow in data/vimeo_triplet/flow, that of a strong flow network.
"""

from mmengine.config import read_base

with read_base():
    from .ugsp_vimeo import *

model["losses"][3].update(target=0.365)
model["losses"] += [
    dict(type="ffplug_ugsp.GeometryLoss", found="level_features", wanted="target_features", weight=0.01),
    dict(type="ffplug_ugsp.FlowDistillationLoss", weight=0.01),
]
train_dataloader.update(batch_size=6)
train_dataloader["dataset"].update(split="all")
val_dataloader["dataset"].update(split="test")
optim_wrapper["optimizer"].update(weight_decay=0.0)
