"""FlowFormer (ECCV 2022): 16,082,353 parameters.

The published count, 16,168,113, holds the norms of a removed stage of Twins and GMA's position tables, which the
network never reads; they are not built here.
"""

model = dict(
    type="ffplug.RecurrentFlowEstimator",
    data_preprocessor=dict(type="ffplug.FlowDataPreprocessor", pad_mode="sintel"),
    encoder=dict(type="ffplug_flowformer.TwinsFeatures"),
    context_encoder=dict(type="ffplug_flowformer.TwinsFeatures"),
    cost=dict(type="ffplug_flowformer.LatentCostMemory"),
    update=dict(
        type="ffplug.GMAUpdate",
        cost_channels=145,
        hidden_channels=128,
        input_channels=128,
        project_context=256,
    ),
    upsampler=dict(type="ffplug.ConvexUpsampler", hidden_channels=128),
    losses=[dict(type="ffplug.SequenceLoss", gamma=0.8, max_flow=400)],
    iterations=12,
    test_iterations=32,
)
