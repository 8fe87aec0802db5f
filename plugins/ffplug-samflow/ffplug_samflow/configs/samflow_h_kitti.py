"""SAMFlow-H, stage 3: KITTI 2015; as samflow_tiny_kitti, with SAM's ViT-H, summed fusion."""

from mmengine.config import read_base

with read_base():
    from .samflow_tiny_kitti import *

model["context_encoder"].update(
    fusion="add",
    sam=dict(
        type="ffplug_samflow.SAMViTEncoder",
        arch="huge",
        checkpoint="weights/sam_vit_h_4b8939.pth",
        origin="github.com/facebookresearch/segment-anything",
        dtype="float16",
    ),
)
