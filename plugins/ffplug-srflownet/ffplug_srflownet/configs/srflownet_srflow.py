"""SRFlowNet on SRFlow; the same without the four losses is skflow_srflow."""

from mmengine.config import read_base

with read_base():
    from .facial_stage import *
    from .srflownet import *

model["losses"][0].update(gamma=0.85)
model.update(test_iterations=12)
