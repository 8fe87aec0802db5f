"""MaskFlowNet-S (CVPR 2020) of MMFlow: 10.5 M parameters."""

model = dict(type="ffplug_mmflow.MMFlowEstimator", network="_base_/models/maskflownets.py")
