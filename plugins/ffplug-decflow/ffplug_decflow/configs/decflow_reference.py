"""DecFlow trained as its published code does it, oversights included; in inference it is the same network.

The fusion block stays random, batch norms drift in frozen parts, and the expression term is masked by the head flow's
validity alone.
"""

from mmengine.config import read_base

with read_base():
    from .decflow import *

model["context_encoder"].update(freeze_fusion=True, fixed_statistics=False)
model["losses"][0].update(masking="published")
