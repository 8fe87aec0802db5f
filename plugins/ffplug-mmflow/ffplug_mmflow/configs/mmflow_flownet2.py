"""FlowNet2 (CVPR 2017) of MMFlow: 162.5 M parameters."""

model = dict(type="ffplug_mmflow.MMFlowEstimator", network="_base_/models/flownet2/flownet2.py")
