"""The policy on GMA's Things weights: FlyingThings3D, 50,000 steps of batch 6, crop 400×720."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.things import *

    from .gma_iterpolicy import *
    from .training import *

train_dataloader.update(batch_size=6)
model.update(freeze_batch_norm=True)
