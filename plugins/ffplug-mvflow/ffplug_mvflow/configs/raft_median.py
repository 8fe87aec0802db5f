"""RAFT large that starts from the median of the codec's motion vectors; RAFT's own weights serve it."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.models.raft_large import *

model["prior"] = dict(type="ffplug_mvflow.MedianMotionPrior")
