"""RAFT (ECCV 2020), small: 990,162 parameters."""

model = dict(
    type="ffplug.RecurrentFlowEstimator",
    data_preprocessor=dict(type="ffplug.FlowDataPreprocessor", pad_mode="sintel"),
    encoder=dict(
        type="ffplug.ResidualEncoder", out_channels=128, norm="instance", widths=(32, 64, 96), bottleneck=True
    ),
    context_encoder=dict(
        type="ffplug.ResidualEncoder", out_channels=160, norm="none", widths=(32, 64, 96), bottleneck=True
    ),
    cost=dict(type="ffplug.AllPairsCorrelation", levels=4, radius=3),
    update=dict(
        type="ffplug.RAFTUpdate",
        cost_channels=196,
        hidden_channels=96,
        input_channels=64,
        cost_widths=(96,),
        flow_widths=(64, 32),
        motion_channels=82,
        head_width=128,
        separable=False,
    ),
    upsampler=dict(type="ffplug.BilinearUpsampler", factor=8),
    losses=[dict(type="ffplug.SequenceLoss", gamma=0.8, max_flow=400)],
    iterations=12,
    test_iterations=32,
)
