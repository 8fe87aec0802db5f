"""FlyingThings3D, clean and final, left camera, both directions of time, crop 400×720; validation on Sintel."""

from mmengine.config import read_base

with read_base():
    from .loaders import *

train_dataloader["dataset"] = dict(
    type="ffplug.FlyingThings3DDataset",
    data_root="data/FlyingThings3D",
    render="both",
    split="train",
    pipeline=[
        dict(type="ffplug.LoadFlowPair"),
        dict(type="ffplug.RAFTDenseAugment", crop_size=(400, 720), min_scale=-0.4, max_scale=0.8, do_flip=True),
        dict(type="ffplug.PackFlowInputs"),
    ],
)
