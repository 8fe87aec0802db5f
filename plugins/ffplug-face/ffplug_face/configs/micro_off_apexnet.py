"""OFF-ApexNet, the two streams of the paper."""

from mmengine.config import read_base

with read_base():
    from .micro_ststnet import *

model.update(network=dict(type="ffplug_face.OFFApexNet"), optimizer=dict(type="Adam", lr=1e-4))
