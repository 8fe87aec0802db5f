"""RAFT small on FlyingThings3D."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.recipes.raft_small_things import *
