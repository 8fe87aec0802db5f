"""SAMFlow-tiny, stage 3: KITTI 2015, from the Sintel stage. 50,000 iterations of batch 6, crop 400x720.

Weight decay 1e-5, gamma 0.85. Tested in tiles of 384x720 with 24 iterations, as submissions are made. (The paper's
figures on KITTI's training set are those of the Things stage, in tiles of 432x960.)
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.kitti import *

    from .training import *

model.update(tile=dict(size=(384, 720)), test_iterations=24)
model["data_preprocessor"].update(pad_mode="kitti")
model["losses"][0].update(gamma=0.85)
train_dataloader.update(batch_size=6)
train_dataloader["dataset"]["pipeline"][1].update(crop_size=(400, 720))
train_cfg.update(max_iters=50_000)
param_scheduler.update(total_steps=50_100)
optim_wrapper["optimizer"].update(weight_decay=1e-5)
