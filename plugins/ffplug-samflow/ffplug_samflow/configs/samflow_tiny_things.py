"""SAMFlow-tiny, stage 1: FlyingThings3D, from FlowFormer's Things weights. Batch 6, crop 432x960.

Tested on Sintel in tiles of 432x960 with 32 iterations, as the paper's figures.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.things import *

    from .training import *

train_dataloader.update(batch_size=6)
train_dataloader["dataset"]["pipeline"][1].update(crop_size=(432, 960))
