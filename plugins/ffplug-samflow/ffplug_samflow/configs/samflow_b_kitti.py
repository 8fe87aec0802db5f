"""SAMFlow-B, stage 3: KITTI 2015; as samflow_tiny_kitti, with SAM's ViT-B."""

from mmengine.config import read_base

with read_base():
    from .samflow_tiny_kitti import *

model["context_encoder"].update(
    sam=dict(
        type="ffplug_samflow.SAMViTEncoder",
        arch="base",
        checkpoint="sam_vit_b",
        dtype="float16",
    ),
)
