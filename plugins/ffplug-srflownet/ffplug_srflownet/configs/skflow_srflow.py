"""SKFlow on SRFlow: SRFlowNet's recipe without its losses, for comparison."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.models.skflow import *

    from .facial_stage import *

model["losses"][0].update(gamma=0.85)
model.update(test_iterations=12)
