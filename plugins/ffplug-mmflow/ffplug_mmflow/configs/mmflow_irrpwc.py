"""IRR-PWC (CVPR 2019) of MMFlow: 6.4 M parameters."""

model = dict(type="ffplug_mmflow.MMFlowEstimator", network="_base_/models/irrpwc.py")
