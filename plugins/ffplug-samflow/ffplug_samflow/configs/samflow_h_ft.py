"""SAMFlow-H as its released Sintel weights ask for it: weighted fusion, and the misaligned crop of their training."""

from mmengine.config import read_base

with read_base():
    from .samflow_h import *

model["context_encoder"].update(fusion="weighted")
model["context_encoder"]["sam"].update(rel_pos_crop="first")
