"""Priors from motion vectors."""

from ffplug_mvflow.models.converter import MotionVectorPrior
from ffplug_mvflow.models.median import MedianMotionPrior

__all__ = ["MedianMotionPrior", "MotionVectorPrior"]
