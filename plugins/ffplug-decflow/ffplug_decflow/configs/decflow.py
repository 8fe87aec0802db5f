"""DecFlow (ACM MM 2024): GMA with facial semantics in the context and a second decoder for the head flow.

12,905,410 parameters; the published count, 20,085,442, holds a stage of the semantic encoder and two position tables
that are never read.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.models.gma import *

model["context_encoder"] = dict(
    type="ffplug_decflow.SemanticContextEncoder",
    context=dict(type="ffplug.ResidualEncoder", out_channels=256, norm="batch"),
    semantic=dict(type="ffplug_decflow.FacialSemanticEncoder"),
)
model["decoders"] = dict(
    head=dict(
        update=dict(type="ffplug.GMAUpdate", cost_channels=324, own_attention=False),
        upsampler=dict(type="ffplug.ConvexUpsampler", hidden_channels=128),
    )
)
model["differences"] = dict(expression=("", "head"))
model["losses"] = [dict(type="ffplug_decflow.DecomposedLoss")]
model.update(iterations=12, test_iterations=24)
