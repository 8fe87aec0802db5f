"""Aff-Wild2 at data/Aff-Wild2 (second ABAW release), or procedural faces in its place; validation on its own part."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.loaders import *
    from ffplug.configs.runtime import *

prepare_data = [
    dict(
        type="ffplug.ProceduralStandIn",
        layout="affwild2",
        data_root="data/Aff-Wild2",
        scenes=12,
        frames=48,
        size=(112, 112),
        textures="analytic",
    ),
]

train_dataloader.update(batch_size=128)
train_dataloader["dataset"] = dict(
    type="ffplug_fpnmaa.AffWild2Dataset",
    data_root="data/Aff-Wild2",
    split="train",
    pipeline=[
        dict(type="ffplug_fpnmaa.LoadFace"),
        dict(type="ffplug_fpnmaa.FlipFace"),
        dict(type="ffplug_fpnmaa.ResizeFace", size=128),
        dict(type="ffplug_fpnmaa.PackAffect"),
    ],
)
val_dataloader.update(batch_size=128)
val_dataloader["dataset"] = dict(type="ffplug_fpnmaa.AffWild2Dataset", data_root="data/Aff-Wild2", split="validation")
val_evaluator = dict(type="ffplug_fpnmaa.AffectMetric", prefix="affect")
val_cfg = dict(type="ValLoop")
default_hooks["checkpoint"].update(save_best="affect/score", rule="greater")
