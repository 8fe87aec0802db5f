"""A narrow second stage over latentface_small1, on portraits in VoxCeleb's layout at data/portrait_videos."""

from mmengine.config import read_base

with read_base():
    from .latentface_stage2 import *

prepare_data = dict(
    type="ffplug.ProceduralStandIn",
    layout="voxceleb",
    data_root="data/portrait_videos",
    scenes=60,
    frames=16,
    size=(64, 64),
    textures="analytic",
)

model["autoencoder"].update(width=16, code=64, pretrained="work_dirs/latentface_small1/weights.safetensors")
model.update(width=64)
train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader["dataset"].update(data_root="data/portrait_videos")
val_dataloader.update(num_workers=0, persistent_workers=False)
val_dataloader["dataset"].update(data_root="data/portrait_videos")
optim_wrapper.update(type="OptimWrapper")
optim_wrapper["optimizer"].update(lr=1e-3)
param_scheduler.update(T_max=500)
train_cfg.update(max_iters=500, val_interval=250)
custom_hooks[-1].update(momentum=0.02)  # a mean over some 50 steps: there are but 500
default_hooks["checkpoint"].update(interval=250)
default_hooks["logger"].update(interval=50)
