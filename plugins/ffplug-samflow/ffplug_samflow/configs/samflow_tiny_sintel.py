"""SAMFlow-tiny, stage 2: 200 Sintel clean, 200 final, 400 KITTI 2015, 10 HD1K, 1 Things clean and final.

240,000 iterations of batch 3, whose gradients are summed over two: 120,000 updates of 6. Crop 432x960, weight decay
1e-5, gamma 0.85. Tested in tiles with 32 iterations.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.sintel_mix import *

    from .training import *

model["losses"][0].update(gamma=0.85)
train_dataloader.update(batch_size=3)
train_dataloader["dataset"].update(times=[200, 200, 400, 10, 1])
train_dataloader["dataset"]["datasets"][4].update(render="both")
for _part in train_dataloader["dataset"]["datasets"]:
    _part["pipeline"][1].update(crop_size=(432, 960))
train_cfg.update(max_iters=240_000)
param_scheduler.update(total_steps=240_100)
optim_wrapper.update(accumulative_counts=2)
optim_wrapper["optimizer"].update(weight_decay=1e-5)
