"""How FlowFormer is trained, at every stage: AdamW, one cycle, gradients clipped, noise on the frames, float32.

Batch sizes are those of the whole training; with several GPUs, divide them by their number. A stage that follows
another starts from its weights: ``--cfg-options load_from=work_dirs/flowformer_chairs/last.pth``.
"""

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1.25e-4, weight_decay=1e-4, eps=1e-8),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = dict(
    type="OneCycleLR",
    eta_max=1.25e-4,
    total_steps=120_100,
    pct_start=0.05,
    anneal_strategy="linear",
    by_epoch=False,
)
train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=120_000, val_interval=5_000)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(
    checkpoint=dict(type="ffplug.CheckpointHook", interval=5_000),
    logger=dict(type="LoggerHook", interval=100),
)
custom_hooks = [dict(type="ffplug.NaNGuardHook"), dict(type="ffplug.ProgressHook")]
log_processor = dict(by_epoch=False, window_size=100)
randomness = dict(seed=1234)
