"""GMA that starts from the codec's motion vectors."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.models.gma import *

model["prior"] = dict(type="ffplug_mvflow.MotionVectorPrior")
model["losses"].append(dict(type="ffplug_mvflow.MotionVectorLoss", gamma=0.8))
model.update(test_iterations=12)
