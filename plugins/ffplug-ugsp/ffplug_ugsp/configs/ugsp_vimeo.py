"""UGSP's second phase as published, on labels in data/vimeo_triplet/labels; see ugsp_uncertainty_vimeo for them."""

from mmengine.config import read_base

with read_base():
    from .ugsp import *
    from .vimeo import *

train_dataloader["dataset"].update(labels="labels")
# Epochs of 1523 steps: temperature 1 - epoch / 150, but 0.4 at least; budget and labels count from epoch 1 on, fully
# from epoch 16; labels count less from epoch 200 on.
custom_hooks.append(
    dict(
        type="ffplug_ugsp.PiecewiseHook",
        schedules={
            "network.temperature": [(0, 1.0), (137_070, 0.4)],
            "losses.3.scale": [(1523, 0.0), (24_368, 0.1)],
            "losses.4.scale": [(1523, 0.0), (24_368, 0.1)],
            "losses.4.weight": [(304_600, 0.5), (426_440, 0.1)],
        },
    )
)
