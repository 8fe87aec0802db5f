"""GMA on KITTI 2015."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.recipes.gma_kitti import *
