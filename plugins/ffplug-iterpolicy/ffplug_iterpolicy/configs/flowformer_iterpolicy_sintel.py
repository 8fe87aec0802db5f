"""The policy on FlowFormer's Sintel weights: the Sintel mixture, 50,000 steps of batch 6, crop 432×960."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.sintel_mix import *

    from .flowformer_iterpolicy import *
    from .training import *

model["data_preprocessor"].update(noise=(0, 5))
model["losses"][0].update(gamma=0.85)
model.update(tile=dict(size=(432, 960)))
train_dataloader.update(batch_size=6)
for _part in train_dataloader["dataset"]["datasets"]:
    _part["pipeline"][1].update(crop_size=(432, 960))
optim_wrapper["optimizer"].update(weight_decay=1e-5)
