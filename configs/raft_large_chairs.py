"""RAFT large on FlyingChairs."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.recipes.raft_large_chairs import *
