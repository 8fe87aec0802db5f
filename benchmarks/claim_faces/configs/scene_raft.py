"""A narrow RAFT on procedural scenes; tested on faces."""

from mmengine.config import read_base

with read_base():
    from .scene_gma import *

del model["update"]["heads"], model["update"]["content"], model["update"]["position"]
model["update"]["type"] = "ffplug.RAFTUpdate"
