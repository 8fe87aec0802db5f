"""MaskFlowNet (CVPR 2020) of MMFlow: 20.7 M parameters."""

model = dict(type="ffplug_mmflow.MMFlowEstimator", network="_base_/models/maskflownet.py")
