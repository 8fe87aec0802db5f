"""The policy on FlowFormer's Things weights: FlyingThings3D, 50,000 steps of batch 6, crop 432×960."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.things import *

    from .flowformer_iterpolicy import *
    from .training import *

model["data_preprocessor"].update(noise=(0, 5))
model.update(tile=dict(size=(432, 960)))
train_dataloader.update(batch_size=6)
train_dataloader["dataset"]["pipeline"][1].update(crop_size=(432, 960))
