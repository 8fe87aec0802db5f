"""The policy on GMA's KITTI weights: KITTI 2015, 20,000 steps of batch 6, crop 288×960."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.kitti import *

    from .gma_iterpolicy import *
    from .training import *

train_dataloader.update(batch_size=6)
optim_wrapper["optimizer"].update(weight_decay=1e-5)
param_scheduler.update(total_steps=20_100)
train_cfg.update(max_iters=20_000)
model["losses"][0].update(gamma=0.85)
model.update(freeze_batch_norm=True, test_iterations=24)
model["data_preprocessor"].update(pad_mode="kitti")
