"""SRFlowNet: SKFlow with the four further losses; no change of the network is reported."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.models.skflow import *

    from .regularisers import losses as _losses

model["losses"].extend(_losses)
