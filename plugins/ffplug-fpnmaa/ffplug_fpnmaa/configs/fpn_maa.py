"""FPN-MAA as published: 26.83 M parameters, of which the stem, the first stage and all norms are frozen."""

model = dict(
    type="ffplug_fpnmaa.AffectFPN",
    data_preprocessor=dict(type="ffplug_fpnmaa.AffectPreprocessor"),
    backbone=dict(
        type="mmpretrain.ResNet",
        depth=50,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type="BN", requires_grad=False),
        norm_eval=True,
    ),
    neck=dict(
        type="ffplug_fpnmaa.PyramidNeck", in_channels=[256, 512, 1024, 2048], out_channels=256, extra="subsample"
    ),
    head=dict(
        type="ffplug_fpnmaa.MultiTaskAffectHead", channels=(256,) * 5, tasks=dict(va=2, expr=7, au=12), gates=False
    ),
    losses=[
        dict(type="ffplug_fpnmaa.MaskedMSE"),
        dict(type="ffplug_fpnmaa.MaskedCE"),
        dict(type="ffplug_fpnmaa.MaskedBCE"),
    ],
)
