"""STSS as published: 417,241 parameters."""

model = dict(
    type="ffplug_stss.STSS",
    data_preprocessor=dict(type="ffplug_stss.SupersampleDataPreprocessor"),
    network=dict(type="ffplug_stss.STSSNet", reshading=dict(type="ffplug_stss.EfficientReshading"), history=True),
    losses=[dict(type="ffplug_stss.ReshadingLoss", hole_weight=3.0)],
)
