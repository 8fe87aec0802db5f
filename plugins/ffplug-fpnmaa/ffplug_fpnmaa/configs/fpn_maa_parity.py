"""The published recipe: three teachers, their hard labels where the truth is not known, and the student on all frames.

Mended beside the public code: labels are joined by name, the truth's -5 is no label, videos (not frames) are held out,
and a unit is there when its probability is above .5 (threshold="logit" takes .622, as published). 20 epochs are about
280,000 steps.
"""

from mmengine.config import read_base

with read_base():
    from .affwild2 import *
    from .fpn_maa import *

_labels = "work_dirs/fpn_maa_parity_teachers"
prepare_data.append(
    dict(
        type="ffplug_fpnmaa.TrainTeachers",
        teachers=dict(va="fpn_maa_parity_va", expr="fpn_maa_parity_expr", au="fpn_maa_parity_au"),
        dataset=dict(type="ffplug_fpnmaa.AffWild2Dataset", data_root="data/Aff-Wild2", split="train", unlabelled=True),
        folder=_labels,
    )
)
train_dataloader["dataset"].update(
    teachers=dict(va=f"{_labels}/va.csv", expr=f"{_labels}/expr.csv", au=f"{_labels}/au.csv"),
    fill=True,
    threshold="probability",
    subset="train",
    share=0.05,
    held_out_by="sequence",
)
optim_wrapper = dict(type="ffplug.AmpOptimWrapper", optimizer=dict(type="Adam", lr=1e-3))
train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=280_000, val_interval=14_000)
