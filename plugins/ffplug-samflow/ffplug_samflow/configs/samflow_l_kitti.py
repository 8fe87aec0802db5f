"""SAMFlow-L, stage 3: KITTI 2015; as samflow_tiny_kitti, with SAM's ViT-L."""

from mmengine.config import read_base

with read_base():
    from .samflow_tiny_kitti import *

model["context_encoder"].update(
    sam=dict(
        type="ffplug_samflow.SAMViTEncoder",
        arch="large",
        checkpoint="sam_vit_l",
        dtype="float16",
    ),
)
