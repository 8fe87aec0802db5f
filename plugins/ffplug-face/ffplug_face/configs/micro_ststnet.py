"""STSTNet on features of a fixed scale, head motion removed."""

from mmengine.config import read_base

with read_base():
    from .micro_grid import *

model = dict(
    type="ffplug_face.NetworkLearner",
    network=dict(type="ffplug_face.STSTNet"),
    normaliser=dict(type="ffplug_face.FixedScale"),
    epochs=200,
    batch_size=64,
    optimizer=dict(type="Adam", lr=1e-3),
    mirror=True,
)
