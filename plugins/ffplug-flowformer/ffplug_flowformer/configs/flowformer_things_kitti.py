"""FlowFormer#: the Things stage with crops of 400x720, for generalisation to KITTI; tested there in tiles.

The plain Things weights do not give the paper's figures on KITTI, these do.
"""

from mmengine.config import read_base

with read_base():
    from .flowformer_things import *
    from .kitti_test import *

model.update(
    dict(
        data_preprocessor=dict(type="ffplug.FlowDataPreprocessor", pad_mode="kitti", noise=(0, 5)),
        test_iterations=24,
    )
)
train_dataloader["dataset"]["pipeline"] = [
    dict(type="ffplug.LoadFlowPair", masks=False),
    dict(type="ffplug.RAFTDenseAugment", crop_size=(400, 720), min_scale=-0.4, max_scale=0.8, do_flip=True),
    dict(type="ffplug.PackFlowInputs"),
]
