"""SAMFlow with SAM's ViT-B."""

from mmengine.config import read_base

with read_base():
    from .samflow_tiny import *

model["context_encoder"].update(sam=dict(type="ffplug_samflow.SAMViTEncoder", arch="base"))
