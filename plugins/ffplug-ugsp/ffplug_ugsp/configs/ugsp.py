"""UGSP as published: 6,764,702 parameters, with the published loss.

The factors 0.1 are what :class:`ffplug_ugsp.PiecewiseHook` of the recipes reaches in the end.
"""

model = dict(
    type="ffplug_ugsp.FrameInterpolator",
    network=dict(type="ffplug_ugsp.UGSPNet"),
    losses=[
        dict(type="ffplug_ugsp.LaplacianLoss"),
        dict(type="ffplug_ugsp.LaplacianLoss", found="auxiliary_frame", weight=0.5),
        dict(type="ffplug_ugsp.GeometryLoss", wanted="auxiliary_features", weight=0.001),
        dict(type="ffplug_ugsp.SparsityLoss", target=0.35, weight=0.1, scale=0.1),
        dict(type="ffplug_ugsp.LabelLoss", weight=0.5, scale=0.1),
    ],
)
