"""UGSP's first phase: the uncertainty network, whose training is not published; here 100 epochs.

Then ``ffplug uncertainty-labels`` writes the labels that the second phase reads.
"""

from mmengine.config import read_base

with read_base():
    from .vimeo import *

model = dict(
    type="ffplug_ugsp.FrameInterpolator",
    network=dict(type="ffplug_ugsp.UncertaintyNet"),
    losses=[dict(type="ffplug_ugsp.UncertaintyLoss")],
)
param_scheduler[1].update(end=152_300)
train_cfg.update(max_iters=152_300)
