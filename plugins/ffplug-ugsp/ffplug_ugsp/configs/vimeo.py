"""Vimeo90K's triplets at data/vimeo_triplet, and the schedule that UGSP was published with, without a model.

Four processes with 8 crops of 224×224 each make the published batch; an epoch is then 1523 steps.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.loaders import *
    from ffplug.configs.runtime import *

train_dataloader.update(batch_size=8)
train_dataloader["dataset"] = dict(
    type="ffplug_ugsp.VimeoTripletDataset",
    data_root="data/vimeo_triplet",
    split="train",
    pipeline=[
        dict(type="ffplug_ugsp.LoadTriplet"),
        dict(type="ffplug_ugsp.AugmentTriplet", crop=224),
        dict(type="ffplug_ugsp.PackTriplet"),
    ],
)
val_dataloader["dataset"] = dict(
    type="ffplug_ugsp.VimeoTripletDataset", data_root="data/vimeo_triplet", split="validation"
)
val_evaluator = dict(type="ffplug_ugsp.InterpolationMetric")

optim_wrapper = dict(type="ffplug.AmpOptimWrapper", optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-3))
param_scheduler = [
    dict(type="LinearLR", by_epoch=False, start_factor=5e-4, end=2000),
    dict(type="CosineAnnealingLR", by_epoch=False, eta_min=1e-5, begin=2000, end=456_900),
]
train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=456_900, val_interval=15_230)
val_cfg = dict(type="ValLoop")
