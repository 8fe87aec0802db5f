"""A RAFT that trains in minutes on a CPU core, for small recipes: 180,750 parameters, published nowhere.

It works at a quarter of the resolution and looks two cells around, so that large motion takes several iterations.
"""

from mmengine.config import read_base

with read_base():
    from .raft_small import *

model["encoder"].update(out_channels=64, widths=(16, 32))
model["context_encoder"].update(out_channels=64, widths=(16, 32))
model["cost"].update(levels=1, radius=2)
model["update"].update(
    cost_channels=25,
    hidden_channels=32,
    input_channels=32,
    cost_widths=(48,),
    flow_widths=(32, 16),
    motion_channels=46,
    head_width=48,
)
model["upsampler"] = dict(type="ffplug.ConvexUpsampler", hidden_channels=32, width=48, factor=4)
model.update(iterations=8, test_iterations=12)
