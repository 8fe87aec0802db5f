"""FlowFormer, stage 2: FlyingThings3D, both passes, from the Chairs stage. Crop 432x960, batch 6, 120,000 steps.

Tested in tiles of 432x960 with 32 iterations, as the paper's figures on Sintel.
"""

from mmengine.config import read_base

with read_base():
    from .flowformer import *
    from .sintel_test import *
    from .training import *

model.update(
    dict(
        data_preprocessor=dict(type="ffplug.FlowDataPreprocessor", pad_mode="sintel", noise=(0, 5)),
        tile=dict(size=(432, 960)),
    )
)
train_dataloader = dict(
    batch_size=6,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type="pseudo_collate"),
    sampler=dict(type="ffplug.FlowSampler"),
    dataset=dict(
        type="ffplug.FlyingThings3DDataset",
        data_root="data/FlyingThings3D",
        render="both",
        pipeline=[
            dict(type="ffplug.LoadFlowPair", masks=False),
            dict(type="ffplug.RAFTDenseAugment", crop_size=(432, 960), min_scale=-0.4, max_scale=0.8, do_flip=True),
            dict(type="ffplug.PackFlowInputs"),
        ],
    ),
)
