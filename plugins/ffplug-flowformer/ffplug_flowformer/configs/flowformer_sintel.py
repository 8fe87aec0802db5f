"""FlowFormer, stage 3: RAFT's mixture of Sintel, KITTI 2015, HD1K and Things, from the Things stage.

Batch 6, crop 432x960, weight decay 1e-5, gamma 0.85. Tested in tiles with 32 iterations.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.sintel_mix import *

    from .training import *

model.update(tile=dict(size=(432, 960)))
model["losses"][0].update(gamma=0.85)
train_dataloader.update(batch_size=6)
for _part in train_dataloader["dataset"]["datasets"]:
    _part["pipeline"][1].update(crop_size=(432, 960))
optim_wrapper["optimizer"].update(weight_decay=1e-5)
