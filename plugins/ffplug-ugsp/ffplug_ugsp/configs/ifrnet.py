"""IFRNet as published, base size: 4,959,692 parameters."""

model = dict(
    type="ffplug_ugsp.FrameInterpolator",
    network=dict(type="ffplug_ugsp.IFRNet"),
    losses=[
        dict(type="ffplug_ugsp.CharbonnierLoss"),
        dict(type="ffplug_ugsp.CensusLoss"),
        dict(type="ffplug_ugsp.GeometryLoss", found="features", wanted="target_features", weight=0.01),
    ],
)
