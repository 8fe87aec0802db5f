"""SAMFlow with MobileSAM's TinyViT."""

from mmengine.config import read_base

with read_base():
    from ffplug_flowformer.configs.flowformer import *

model["context_encoder"] = dict(
    type="ffplug_samflow.SAMContextEncoder",
    twins=dict(type="ffplug_flowformer.TwinsFeatures"),
    sam=dict(type="ffplug_samflow.MobileSAMTinyViT"),
    fusion="weighted",
)
