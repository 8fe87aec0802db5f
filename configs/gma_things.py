"""GMA on FlyingThings3D."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.recipes.gma_things import *
