"""Metrics: reconstruction, expressions, verification, disentangling and depth."""

from ffplug_latentface.evaluation.expressions import ExpressionMetric
from ffplug_latentface.evaluation.reconstruction import ReconstructionMetric
from ffplug_latentface.evaluation.verification import VerificationMetric

__all__ = ["ExpressionMetric", "ReconstructionMetric", "VerificationMetric"]
