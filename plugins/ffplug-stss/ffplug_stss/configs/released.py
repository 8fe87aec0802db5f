"""The released data at data/STSS, and the published training: a step of 8 crops, 300,000 steps."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.loaders import *
    from ffplug.configs.runtime import *

    from .stss import *

model["losses"].append(dict(type="ffplug_stss.PerceptualLoss", weight=0.01))

train_dataloader.update(batch_size=8)
train_dataloader["dataset"] = dict(
    type="ffplug_stss.STSSDataset",
    data_root="data/STSS",
    split="train",
    pipeline=[
        dict(type="ffplug_stss.LoadRecord"),
        dict(type="ffplug_stss.RandomReshadingMask"),
        dict(type="ffplug_stss.RandomCropPair", size=(256, 256)),
        dict(type="ffplug_stss.PackSupersample"),
    ],
)
val_dataloader["dataset"] = dict(type="ffplug_stss.STSSDataset", data_root="data/STSS", split="test")
val_evaluator = [
    dict(type="ffplug.FrameMetric"),
    # The paper's protocol: truncated to whole levels, luma in the range of a studio.
    dict(type="ffplug.FrameMetric", prefix="paper", quantise="truncate", colour="y"),
]

optim_wrapper = dict(type="ffplug.AmpOptimWrapper", optimizer=dict(type="Adam", lr=1e-4))
# One epoch of the published schedule is about 3000 steps; its rate falls once, after the 70th.
param_scheduler = dict(type="MultiStepLR", by_epoch=False, milestones=[210_000], gamma=0.9)
train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=300_000, val_interval=15_000)
val_cfg = dict(type="ValLoop")
