"""Metrics."""

from ffplug_srflownet.evaluation.facial import FacialFlowMetric

__all__ = ["FacialFlowMetric"]
