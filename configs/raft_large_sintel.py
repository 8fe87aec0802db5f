"""RAFT large on the Sintel mixture."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.recipes.raft_large_sintel import *
