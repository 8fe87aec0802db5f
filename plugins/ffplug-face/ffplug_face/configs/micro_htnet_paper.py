"""HTNet in its published geometry, 139.6 million parameters, with the flow's length for the third channel."""

from mmengine.config import read_base

with read_base():
    from .micro_ststnet_paper import *

train_dataloader["dataset"]["feature"].update(
    channels=("u", "v", "magnitude"),
    patches=((0.3, 0.38), (0.7, 0.38), (0.36, 0.75), (0.64, 0.75)),
)
model.update(network=dict(type="ffplug_face.HTNet"))
