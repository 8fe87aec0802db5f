"""What samflow_sintel takes on a machine without a GPU: a narrower network, smaller crops, fewer iterations.

On two cores it trains for some five minutes. SAM's encoder keeps its size, so that its weights fit.
"""

prepare_data = dict(size=(128, 160), scenes=48, frames=6, workers=2)

model = dict(
    encoder=dict(embed_dims=(32, 64), heads=(1, 2)),
    context_encoder=dict(twins=dict(embed_dims=(32, 64), heads=(1, 2)), sam_channels=32, heads=4, width=256),
    cost=dict(
        feature_channels=64,
        context_channels=64,
        vertical_channels=16,
        tokens=4,
        channels=32,
        depth=1,
        patch_channels=16,
        query_channels=32,
        heads=4,
    ),
    update=dict(
        cost_channels=113,
        hidden_channels=64,
        input_channels=64,
        project_context=64,
        cost_widths=(96, 64),
        flow_widths=(32, 32),
        motion_channels=64,
        head_width=96,
    ),
    upsampler=dict(hidden_channels=64, width=96),
    iterations=4,
    test_iterations=6,
)

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    pin_memory=False,
    dataset=dict(
        render="clean",
        pipeline=[
            dict(type="ffplug.LoadFlowPair"),
            dict(
                type="ffplug.RAFTDenseAugment",
                crop_size=(96, 128),
                min_scale=0.0,
                max_scale=0.3,
                do_flip=True,
                mode="clean",
                eraser_sides=(10, 30),
            ),
            dict(type="ffplug.PackFlowInputs"),
        ],
    ),
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(render="clean"))

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(lr=8e-4))
param_scheduler = dict(eta_max=8e-4, total_steps=800)
train_cfg = dict(max_iters=800, val_interval=200)
default_hooks = dict(checkpoint=dict(interval=200), logger=dict(interval=50))
log_processor = dict(window_size=50)
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend="gloo"))
