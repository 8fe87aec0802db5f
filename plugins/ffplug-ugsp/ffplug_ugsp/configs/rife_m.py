"""RIFE for any time between the frames (the published model "m")."""

from mmengine.config import read_base

with read_base():
    from .rife import *

model["network"].update(any_timestep=True)
