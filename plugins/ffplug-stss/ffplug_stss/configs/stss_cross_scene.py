"""STSS on three scenes, tested on Arena, which it never sees."""

from mmengine.config import read_base

with read_base():
    from .released import *

train_dataloader["dataset"].update(scenes=["Lewis", "SunTemple", "Subway"])
val_dataloader["dataset"].update(scenes=["Arena"])
