"""FlowFormer, stage 1: FlyingChairs, from ImageNet weights. Batch 8, peak rate 2.5e-4, crop 368x496.

timm's ``twins_svt_large`` weights have to lie at ``weights/twins_svt_large.safetensors`` (see the plugin's README).
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.chairs import *

    from .training import *

model["encoder"].update(weights="weights/twins_svt_large.safetensors")
model["context_encoder"].update(weights="weights/twins_svt_large.safetensors")
train_dataloader.update(batch_size=8)
param_scheduler.update(eta_max=2.5e-4)
optim_wrapper["optimizer"].update(lr=2.5e-4)
