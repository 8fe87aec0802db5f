"""MMFlow's networks as FFPlug models."""

from ffplug_mmflow.models.estimator import MMFlowEstimator

__all__ = ["MMFlowEstimator"]
