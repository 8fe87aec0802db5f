"""LiteFlowNet (CVPR 2018) of MMFlow: 5.4 M parameters."""

model = dict(type="ffplug_mmflow.MMFlowEstimator", network="_base_/models/liteflownet/liteflownet.py")
