"""STSS on SunTemple alone."""

from mmengine.config import read_base

with read_base():
    from .released import *

train_dataloader["dataset"].update(scenes=["SunTemple"])
val_dataloader["dataset"].update(scenes=["SunTemple"])
