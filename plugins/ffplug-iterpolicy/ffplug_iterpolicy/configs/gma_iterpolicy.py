"""GMA with the context-aware iteration policy: 23,939 parameters that train, on the frozen base."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.models.gma import *

model.update(
    policy=dict(type="ffplug_iterpolicy.ContextIterationPolicy"),
    frozen=["encoder", "context_encoder", "cost", "decoder.update", "decoder.upsampler"],
)
model["losses"].append(dict(type="ffplug_iterpolicy.IterationPolicyLoss"))
