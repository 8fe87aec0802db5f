"""STSS on procedural scenes, written once to data/STSS-small in the released layout, from scratch.

Data of your own in that layout take their place. A short run stays near bilinear: see stss_finetune.
"""

from mmengine.config import read_base

with read_base():
    from .released import *

prepare_data = dict(
    type="ffplug.ProceduralStandIn",
    layout="stss",
    data_root="data/STSS-small",
    scenes=8,
    frames=6,
    size=(136, 240),
    difficulty="standard",
    textures="analytic",
    workers=2,
)

model["losses"] = [dict(type="ffplug_stss.ReshadingLoss")]
train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader["dataset"].update(data_root="data/STSS-small")
train_dataloader["dataset"]["pipeline"][2].update(size=(96, 96))
val_dataloader.update(num_workers=0, persistent_workers=False)
val_dataloader["dataset"].update(data_root="data/STSS-small")

optim_wrapper.update(type="OptimWrapper")
param_scheduler = dict(type="LinearLR", by_epoch=False, start_factor=0.1, end=20)
train_cfg.update(max_iters=2000, val_interval=500)
default_hooks["checkpoint"].update(interval=500)
default_hooks["logger"].update(interval=50)
custom_hooks.append(dict(type="ffplug_stss.DeadActivationHook"))
