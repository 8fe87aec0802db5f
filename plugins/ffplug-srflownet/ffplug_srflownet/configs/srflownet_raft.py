"""RAFT with SRFlowNet's four further losses."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.models.raft_large import *

    from .regularisers import losses as _losses

model["losses"].extend(_losses)
