"""SRFlowNet's four terms; weights and forms are our reading, the paper's are not public."""

losses = [
    dict(type="ffplug_srflownet.MaskLoss", weight=0.5),
    dict(type="ffplug_srflownet.GradientLoss", weight=0.5, operator="diff"),
    dict(type="ffplug_srflownet.TotalVariationLoss", weight=0.02),
    dict(type="ffplug_srflownet.FlowDifferenceLoss", weight=0.2),
]
