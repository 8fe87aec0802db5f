"""GMA on FlyingChairs."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.recipes.gma_chairs import *
