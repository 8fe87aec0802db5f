"""GMA whose attention reads content and relative position."""

from mmengine.config import read_base

with read_base():
    from .gma import *

model["update"].update(dict(content=True, position=True))
