"""FlowFormer, stage 1: FlyingChairs, from ImageNet weights. Batch 8, peak rate 2.5e-4, crop 368x496.

timm's weights ``twins_svt_large`` have to be there (see the plugin's README, and ``ffplug weights list``).
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.chairs import *

    from .training import *

model["encoder"].update(weights="twins_svt_large")
model["context_encoder"].update(weights="twins_svt_large")
train_dataloader.update(batch_size=8)
param_scheduler.update(eta_max=2.5e-4)
optim_wrapper["optimizer"].update(lr=2.5e-4)
