"""UGSP-refine: 8,926,133 parameters with the teacher, which only training runs."""

from mmengine.config import read_base

with read_base():
    from .ugsp import *

model["network"].update(refine=True)
model["losses"][3].update(weight=0.15)
model["losses"].append(dict(type="ffplug_ugsp.TeacherLoss", teacher=1.0, distill=0.02))
