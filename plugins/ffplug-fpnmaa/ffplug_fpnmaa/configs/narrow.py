"""A narrow network on small procedural faces: what the procedural recipes share."""

from mmengine.config import read_base

with read_base():
    from .affwild2 import *

_size = 64
prepare_data[0].update(data_root="data/faces", size=(_size, _size))
train_dataloader.update(batch_size=32, num_workers=0, pin_memory=False)
train_dataloader["dataset"].update(data_root="data/faces")
train_dataloader["dataset"]["pipeline"][2].update(size=_size)
val_dataloader.update(num_workers=0)
val_dataloader["dataset"].update(
    data_root="data/faces",
    pipeline=[
        dict(type="ffplug_fpnmaa.LoadFace"),
        dict(type="ffplug_fpnmaa.ResizeFace", size=_size),
        dict(type="ffplug_fpnmaa.PackAffect"),
    ],
)
model = dict(
    type="ffplug_fpnmaa.AffectFPN",
    image_size=_size,
    data_preprocessor=dict(type="ffplug_fpnmaa.AffectPreprocessor"),
    backbone=dict(type="mmpretrain.ResNet", depth=18, stem_channels=16, base_channels=16, out_indices=(0, 1, 2, 3)),
    neck=dict(type="ffplug_fpnmaa.PyramidNeck", in_channels=[16, 32, 64, 128], out_channels=32),
    head=dict(type="ffplug_fpnmaa.MultiTaskAffectHead", channels=(32,) * 5, tasks=dict(va=2, expr=7, au=12)),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4))
train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=200, val_interval=100)
default_hooks["checkpoint"].update(interval=100)
default_hooks["logger"].update(interval=20)
