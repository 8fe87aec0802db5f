"""SAMFlow-L, stage 1: FlyingThings3D; as samflow_tiny_things, with SAM's ViT-L."""

from mmengine.config import read_base

with read_base():
    from .samflow_tiny_things import *

model["context_encoder"].update(
    sam=dict(
        type="ffplug_samflow.SAMViTEncoder",
        arch="large",
        checkpoint="sam_vit_l",
        dtype="float16",
    ),
)
