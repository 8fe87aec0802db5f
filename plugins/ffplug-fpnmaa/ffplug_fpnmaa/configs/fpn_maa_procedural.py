"""Three narrow teachers and their student on procedural faces, in one run of minutes on a CPU."""

from mmengine.config import read_base

with read_base():
    from .narrow import *

_labels = "work_dirs/fpn_maa_procedural_teachers"
prepare_data.append(
    dict(
        type="ffplug_fpnmaa.TrainTeachers",
        teachers=dict(va="fpn_maa_procedural_va", expr="fpn_maa_procedural_expr", au="fpn_maa_procedural_au"),
        dataset=dict(**val_dataloader["dataset"]),
        folder=_labels,
    )
)
prepare_data[1]["dataset"].update(split="train", unlabelled=True)
model["head"]["gates"] = True
model["losses"] = [
    dict(type="ffplug_fpnmaa.MaskedMSE", weight=0.6),
    dict(type="ffplug_fpnmaa.CCCLoss", weight=0.6),
    dict(type="ffplug_fpnmaa.MaskedCE", weight=0.6),
    dict(type="ffplug_fpnmaa.MaskedBCE", weight=0.6),
    dict(type="ffplug_fpnmaa.DistillLoss", temperature=1.5),
]
train_dataloader["dataset"].update(
    teachers=dict(va=f"{_labels}/va.csv", expr=f"{_labels}/expr.csv", au=f"{_labels}/au.csv"),
)
train_dataloader["sampler"] = dict(type="ffplug_fpnmaa.BalancedSampler", by="expr", power=0.5)
train_cfg.update(max_iters=400)
