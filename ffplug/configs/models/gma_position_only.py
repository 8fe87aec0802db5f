"""GMA whose attention reads relative position alone."""

from mmengine.config import read_base

with read_base():
    from .gma import *

model["update"].update(dict(content=False, position=True))
