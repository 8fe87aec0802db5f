"""Iteration policies: the learned one, and the simple ones that it is measured against."""

from ffplug_iterpolicy.models.context_policy import ContextIterationPolicy
from ffplug_iterpolicy.models.rules import FixedSteps, RandomSkipping, UpdateThreshold
from ffplug_iterpolicy.models.skipping import MODES, PolicyMemory, SkippingPolicy

__all__ = [
    "MODES",
    "ContextIterationPolicy",
    "FixedSteps",
    "PolicyMemory",
    "RandomSkipping",
    "SkippingPolicy",
    "UpdateThreshold",
]
