"""FlowFormer-small: RAFT's residual encoders, four latent tokens of 32 numbers, one layer, no context in it."""

from mmengine.config import read_base

with read_base():
    from .flowformer import *

model.update(
    dict(
        encoder=dict(type="ffplug.ResidualEncoder", out_channels=256, norm="instance"),
        context_encoder=dict(type="ffplug.ResidualEncoder", out_channels=256, norm="instance"),
        cost=dict(
            type="ffplug_flowformer.LatentCostMemory",
            context_channels=0,
            vertical_channels=0,
            tokens=4,
            channels=32,
            depth=1,
        ),
    )
)
