"""RCN-A on features of 60 pixels."""

from mmengine.config import read_base

with read_base():
    from .micro_ststnet import *

train_dataloader["dataset"]["feature"].update(size=60)
model.update(network=dict(type="ffplug_face.RCNA"), epochs=100)
