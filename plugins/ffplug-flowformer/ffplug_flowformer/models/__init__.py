"""FlowFormer's parts: Twins features and the latent cost memory."""

from ffplug_flowformer.models.latent_cost import CostMemory, LatentCostMemory
from ffplug_flowformer.models.twins import TwinsFeatures

__all__ = ["CostMemory", "LatentCostMemory", "TwinsFeatures"]
