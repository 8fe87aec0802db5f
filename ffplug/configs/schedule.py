"""RAFT's optimiser and one-cycle schedule (section 4); a recipe sets steps, rate and weight decay."""

optim_wrapper = dict(
    type="ffplug.AmpOptimWrapper",
    optimizer=dict(type="AdamW", lr=4e-4, weight_decay=1e-4, eps=1e-8),
    clip_grad=dict(max_norm=1.0),
)

param_scheduler = dict(
    type="OneCycleLR",
    by_epoch=False,
    eta_max=4e-4,
    total_steps=100_100,
    pct_start=0.05,
    anneal_strategy="linear",
)

train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=100_000, val_interval=5000)
val_cfg = dict(type="ValLoop")
