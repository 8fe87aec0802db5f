"""A teacher of valence and arousal in 20 bins, after Deng et al. (FG 2020); data and steps as published for FPN-MAA."""

from mmengine.config import read_base

with read_base():
    from .fpn_maa_parity_va import *

model["head"]["va_bins"] = 20
model["losses"] = [dict(type="ffplug_fpnmaa.BinnedCE"), dict(type="ffplug_fpnmaa.CCCLoss")]
