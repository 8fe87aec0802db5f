"""GMA with four attention heads."""

from mmengine.config import read_base

with read_base():
    from .gma import *

model["update"].update(dict(heads=4))
