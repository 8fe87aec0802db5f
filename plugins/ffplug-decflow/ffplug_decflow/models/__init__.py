"""The facial semantic encoder and the context encoder that fuses it with another one."""

from ffplug_decflow.models.context import FusionBlock, SemanticContextEncoder
from ffplug_decflow.models.semantic import FacialSemanticEncoder

__all__ = ["FacialSemanticEncoder", "FusionBlock", "SemanticContextEncoder"]
