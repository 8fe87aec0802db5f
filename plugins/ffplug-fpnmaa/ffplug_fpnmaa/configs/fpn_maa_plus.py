"""What we would do today: losses of what is known, CCC, soft labels (temperature 1.5), balanced samples, gates."""

from mmengine.config import read_base

with read_base():
    from .fpn_maa_parity import *

model["head"]["gates"] = True
model["losses"] = [
    dict(type="ffplug_fpnmaa.MaskedMSE", weight=0.6),
    dict(type="ffplug_fpnmaa.CCCLoss", weight=0.6),
    dict(type="ffplug_fpnmaa.MaskedCE", weight=0.6, label_smoothing=0.1),
    dict(type="ffplug_fpnmaa.MaskedBCE", weight=0.6),
    dict(type="ffplug_fpnmaa.DistillLoss", temperature=1.5, with_truth=0.4, without_truth=1.0),
]
train_dataloader["dataset"].update(fill=False)
train_dataloader["sampler"] = dict(type="ffplug_fpnmaa.BalancedSampler", by="expr", power=0.5)
optim_wrapper.update(optimizer=dict(type="AdamW", lr=3e-4, weight_decay=1e-4))
