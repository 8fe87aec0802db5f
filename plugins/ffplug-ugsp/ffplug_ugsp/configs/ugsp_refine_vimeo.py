"""UGSP-refine on Vimeo90K."""

from mmengine.config import read_base

with read_base():
    from .ugsp_vimeo import *

model["network"].update(refine=True)
model["losses"][3].update(weight=0.15)
model["losses"].append(dict(type="ffplug_ugsp.TeacherLoss", teacher=1.0, distill=0.02))
