"""STSTNet as its authors train it: TV-L1 flow, each channel from its least to its greatest value, 0..255."""

from mmengine.config import read_base

with read_base():
    from .micro_grid import *

train_dataloader["dataset"]["feature"].update(flow=dict(type="ffplug_face.TVL1Flow"), head="none")
model = dict(
    type="ffplug_face.NetworkLearner",
    network=dict(type="ffplug_face.STSTNet"),
    normaliser=dict(type="ffplug_face.MinMax"),
    epochs=800,
    batch_size=256,
    optimizer=dict(type="Adam", lr=5e-5),
    input_range=255.0,
    balance=0.0,
    label_smoothing=0.0,
)
