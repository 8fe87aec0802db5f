"""RAFT (ECCV 2020), large: 5,257,536 parameters."""

model = dict(
    type="ffplug.RecurrentFlowEstimator",
    data_preprocessor=dict(type="ffplug.FlowDataPreprocessor", pad_mode="sintel"),
    encoder=dict(type="ffplug.ResidualEncoder", out_channels=256, norm="instance"),
    context_encoder=dict(type="ffplug.ResidualEncoder", out_channels=256, norm="batch"),
    cost=dict(type="ffplug.AllPairsCorrelation", levels=4, radius=4),
    update=dict(type="ffplug.RAFTUpdate", cost_channels=324, hidden_channels=128, input_channels=128),
    upsampler=dict(type="ffplug.ConvexUpsampler", hidden_channels=128),
    losses=[dict(type="ffplug.SequenceLoss", gamma=0.8, max_flow=400)],
    iterations=12,
    test_iterations=32,
)
