"""RAFT small on FlyingChairs."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.recipes.raft_small_chairs import *
