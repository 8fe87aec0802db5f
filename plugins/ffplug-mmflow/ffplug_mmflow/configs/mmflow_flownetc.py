"""FlowNetC (ICCV 2015) of MMFlow: 39.2 M parameters."""

model = dict(type="ffplug_mmflow.MMFlowEstimator", network="_base_/models/flownetc.py")
