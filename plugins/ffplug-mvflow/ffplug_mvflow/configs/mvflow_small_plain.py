"""The network of mvflow_small without the prior, trained on the same pairs: what the prior is measured against."""

from mmengine.config import read_base

with read_base():
    from .mvflow_small import *

model["prior"] = None
del model["losses"][1]
