"""Frozen Segment-Anything encoders, and the context encoder that fuses them with FlowFormer's."""

from ffplug_samflow.models.context import ContextAdaptionModule, SAMContextEncoder
from ffplug_samflow.models.frozen import FrozenEncoder
from ffplug_samflow.models.tiny_vit import MobileSAMTinyViT
from ffplug_samflow.models.vit import SAMViTEncoder

__all__ = ["ContextAdaptionModule", "FrozenEncoder", "MobileSAMTinyViT", "SAMContextEncoder", "SAMViTEncoder"]
