"""A narrow RAFT on drawn faces."""

from mmengine.config import read_base

with read_base():
    from .face_gma import *

del model["update"]["heads"], model["update"]["content"], model["update"]["position"]
model["update"]["type"] = "ffplug.RAFTUpdate"
