"""A teacher: FPN-MAA with the head for expressions alone."""

from mmengine.config import read_base

with read_base():
    from .fpn_maa import *

model["head"]["tasks"] = dict(expr=7)
model["losses"] = [dict(type="ffplug_fpnmaa.MaskedCE")]
