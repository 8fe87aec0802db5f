"""FlowFormer, stage 4: KITTI 2015, from the Sintel stage. 50,000 steps, tested in tiles with 24 iterations."""

from mmengine.config import read_base

with read_base():
    from .flowformer_sintel import *
    from .kitti_test import *

model.update(
    dict(
        data_preprocessor=dict(type="ffplug.FlowDataPreprocessor", pad_mode="kitti", noise=(0, 5)),
        test_iterations=24,
    )
)
train_dataloader["dataset"] = dict(
    type="ffplug.KITTI2015Dataset",
    data_root="data/KITTI",
    pipeline=[
        dict(type="ffplug.LoadFlowPair", masks=False),
        dict(type="ffplug.RAFTSparseAugment", crop_size=(432, 960), min_scale=-0.2, max_scale=0.4, do_flip=False),
        dict(type="ffplug.PackFlowInputs"),
    ],
)
param_scheduler.update(dict(total_steps=50_100))
train_cfg.update(dict(max_iters=50_000))
