"""PWC-Net (CVPR 2018) of MMFlow: 9.4 M parameters."""

model = dict(type="ffplug_mmflow.MMFlowEstimator", network="_base_/models/pwcnet.py")
