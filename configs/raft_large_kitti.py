"""RAFT large on KITTI 2015."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.recipes.raft_large_kitti import *
