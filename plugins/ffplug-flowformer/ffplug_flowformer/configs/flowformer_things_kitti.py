"""FlowFormer#: the Things stage with crops of 400x720, for generalisation to KITTI; tested there in tiles.

The plain Things weights do not give the paper's figures on KITTI, these do.
"""

from mmengine.config import read_base

with read_base():
    from .flowformer_things import *

model.update(test_iterations=24)
model["data_preprocessor"].update(pad_mode="kitti")
train_dataloader["dataset"]["pipeline"][1].update(crop_size=(400, 720))
val_dataloader["dataset"] = dict(type="ffplug.KITTI2015Dataset", data_root="data/KITTI2015")
