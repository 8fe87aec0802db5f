"""A teacher: FPN-MAA with the head for action units alone."""

from mmengine.config import read_base

with read_base():
    from .fpn_maa import *

model["head"]["tasks"] = dict(au=12)
model["losses"] = [dict(type="ffplug_fpnmaa.MaskedBCE")]
