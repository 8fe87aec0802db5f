"""SAMFlow-H, stage 3: KITTI 2015; as samflow_tiny_kitti, with SAM's ViT-H, summed fusion."""

from mmengine.config import read_base

with read_base():
    from .samflow_tiny_kitti import *

model["context_encoder"].update(
    fusion="add",
    sam=dict(
        type="ffplug_samflow.SAMViTEncoder",
        arch="huge",
        checkpoint="sam_vit_h",
        dtype="float16",
    ),
)
