"""LiteFlowNet2 (TPAMI 2020) of MMFlow: 6.4 M parameters."""

model = dict(type="ffplug_mmflow.MMFlowEstimator", network="_base_/models/liteflownet2/liteflownet2.py")
