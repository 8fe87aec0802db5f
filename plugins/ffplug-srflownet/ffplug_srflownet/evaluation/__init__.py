"""Metrics."""

from ffplug_srflownet.evaluation.angular_error import AngularErrorMetric

__all__ = ["AngularErrorMetric"]
