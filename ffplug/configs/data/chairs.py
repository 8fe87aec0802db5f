"""FlyingChairs, crop 368×496."""

from mmengine.config import read_base

with read_base():
    from .loaders import *

train_dataloader["dataset"] = dict(
    type="ffplug.FlyingChairsDataset",
    data_root="data/FlyingChairs_release",
    split="train",
    pipeline=[
        dict(type="ffplug.LoadFlowPair"),
        dict(type="ffplug.RAFTDenseAugment", crop_size=(368, 496), min_scale=-0.1, max_scale=1.0, do_flip=True),
        dict(type="ffplug.PackFlowInputs"),
    ],
)
val_dataloader["dataset"] = dict(type="ffplug.FlyingChairsDataset", data_root="data/FlyingChairs_release", split="val")
