"""DecFlow on FacialFlowNet, stage 2: the head decoder and the reduction of the semantics train, from stage 1's weights.

The same schedule and loss. The fusion block stays as stage 1 has left it.
"""

from mmengine.config import read_base

with read_base():
    from .decflow_ffn_stage1 import *

model["frozen"] = ["encoder", "context_encoder.context", "context_encoder.fuse", "decoder"]
