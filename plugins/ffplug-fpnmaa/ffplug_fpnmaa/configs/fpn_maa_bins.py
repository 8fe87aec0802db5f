"""Soft labels, after Deng et al. (FG 2020): valence and arousal in 20 bins, temperature 1.5, action units times 8."""

from mmengine.config import read_base

with read_base():
    from .fpn_maa_parity import *

_folder = "work_dirs/fpn_maa_bins_teachers"
prepare_data[-1].update(
    teachers=dict(va="fpn_maa_bins_va", expr="fpn_maa_parity_expr", au="fpn_maa_parity_au"), folder=_folder
)
model["head"]["va_bins"] = 20
model["losses"] = [
    dict(type="ffplug_fpnmaa.BinnedCE", weight=0.6),
    dict(type="ffplug_fpnmaa.CCCLoss", weight=0.6),
    dict(type="ffplug_fpnmaa.MaskedCE", weight=0.6),
    dict(type="ffplug_fpnmaa.MaskedBCE", weight=4.8),
    dict(type="ffplug_fpnmaa.DistillLoss", temperature=1.5, weights=dict(au=8.0)),
]
train_dataloader["dataset"].update(
    teachers=dict(va=f"{_folder}/va.csv", expr=f"{_folder}/expr.csv", au=f"{_folder}/au.csv"), fill=False
)
train_dataloader["sampler"] = dict(type="ffplug_fpnmaa.BalancedSampler", by="expr", power=0.5)
