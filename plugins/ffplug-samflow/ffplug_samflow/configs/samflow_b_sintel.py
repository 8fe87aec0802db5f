"""SAMFlow-B, stage 2: the Sintel mixture; as samflow_tiny_sintel, with SAM's ViT-B."""

from mmengine.config import read_base

with read_base():
    from .samflow_tiny_sintel import *

model["context_encoder"].update(
    sam=dict(
        type="ffplug_samflow.SAMViTEncoder",
        arch="base",
        checkpoint="sam_vit_b",
        dtype="float16",
    ),
)
