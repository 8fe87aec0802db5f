"""SAMFlow with SAM's ViT-H."""

from mmengine.config import read_base

with read_base():
    from .samflow_tiny import *

model["context_encoder"].update(sam=dict(type="ffplug_samflow.SAMViTEncoder", arch="huge"))
model["context_encoder"].update(fusion="add")
