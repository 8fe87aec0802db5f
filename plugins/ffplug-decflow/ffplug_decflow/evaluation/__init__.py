"""Metrics of facial, head and expression flow."""

from ffplug_decflow.evaluation.face_flow import FaceFlowMetric

__all__ = ["FaceFlowMetric"]
