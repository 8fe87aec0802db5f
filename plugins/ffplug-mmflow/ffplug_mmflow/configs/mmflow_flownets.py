"""FlowNetS (ICCV 2015) of MMFlow: 38.7 M parameters."""

model = dict(type="ffplug_mmflow.MMFlowEstimator", network="_base_/models/flownets.py")
