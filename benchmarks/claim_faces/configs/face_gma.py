"""The same GMA on drawn faces, for one of their flows."""

from mmengine.config import read_base

with read_base():
    from .scene_gma import *

train_dataloader["dataset"].update(type="ffplug_decflow.FacialFlowNetDataset", flows="facial")
train_dataloader["dataset"]["pipeline"][0] = dict(type="ffplug_decflow.LoadFaceFlow")
train_dataloader["dataset"]["pipeline"][2] = dict(type="ffplug_decflow.PackFaceInputs")
del train_dataloader["dataset"]["render"]
