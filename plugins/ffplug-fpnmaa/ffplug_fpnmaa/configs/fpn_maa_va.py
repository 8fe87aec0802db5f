"""A teacher: FPN-MAA with the head for valence and arousal alone."""

from mmengine.config import read_base

with read_base():
    from .fpn_maa import *

model["head"]["tasks"] = dict(va=2)
model["losses"] = [dict(type="ffplug_fpnmaa.MaskedMSE")]
