"""A linear probe of expression, valence and arousal on AffectNet at data/AffectNet, over both stages' weights.

Needs ffplug-fpnmaa for the data set and the metric: `pip install ffplug-latentface[affect]`. Classes are Aff-Wild2's
seven, without contempt; frequent ones are thinned as published.
"""

from mmengine.config import read_base

with read_base():
    from .latentface_probe import *

model.update(tasks=dict(va=2, expr=7))

_data = dict(type="ffplug_fpnmaa.AffectNetDataset", data_root="data/AffectNet", tasks=("va", "expr"))
_load, _resize = dict(type="ffplug_fpnmaa.LoadFace"), dict(type="ffplug_fpnmaa.ResizeFace", size=64)
_pack = dict(type="ffplug_fpnmaa.PackAffect")
train_dataloader.update(batch_size=128)
train_dataloader["dataset"] = dict(
    **_data,
    split="train",
    thin=dict(neutral=10, happiness=20, sadness=4, surprise=2, anger=4),
    pipeline=[_load, dict(type="ffplug_fpnmaa.FlipFace"), _resize, _pack],
)
val_dataloader.update(batch_size=128)
val_dataloader["dataset"] = dict(**_data, split="validation", pipeline=[_load, _resize, _pack])
val_evaluator = dict(type="ffplug_fpnmaa.AffectMetric", prefix="affect")
train_cfg.update(max_iters=8_000, val_interval=400)
