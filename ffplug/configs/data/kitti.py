"""KITTI 2015, crop 288×960, validation on the same 200 pairs as the published code does."""

from mmengine.config import read_base

with read_base():
    from .loaders import *

train_dataloader["dataset"] = dict(
    type="ffplug.KITTI2015Dataset",
    data_root="data/KITTI2015",
    pipeline=[
        dict(type="ffplug.LoadFlowPair"),
        dict(type="ffplug.RAFTSparseAugment", crop_size=(288, 960), min_scale=-0.2, max_scale=0.4, do_flip=False),
        dict(type="ffplug.PackFlowInputs"),
    ],
)
val_dataloader["dataset"] = dict(type="ffplug.KITTI2015Dataset", data_root="data/KITTI2015")
