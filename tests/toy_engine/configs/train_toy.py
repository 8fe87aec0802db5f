model = dict(type="toy_engine.ToyEstimator")
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(type="toy_engine.ToyFlow"),
    sampler=dict(type="ffplug.FlowSampler"),
)
train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=24, val_interval=8)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1e-2), clip_grad=dict(max_norm=1.0), accumulative_counts=2)
param_scheduler = dict(
    type="OneCycleLR", eta_max=1e-2, total_steps=30, pct_start=0.2, anneal_strategy="linear", by_epoch=False
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    dataset=dict(type="toy_engine.ToyFlow", length=5, augment=False),
    sampler=dict(type="ffplug.FlowSampler", shuffle=False, infinite=False),
)
val_cfg = dict()
val_evaluator = dict(type="toy_engine.ToyEPE")
default_hooks = dict(
    checkpoint=dict(type="ffplug.CheckpointHook", interval=4, max_keep_ckpts=2, save_best="EPE"),
    logger=dict(type="LoggerHook", interval=4),
)
custom_hooks = [
    dict(type="ffplug.NaNGuardHook"),
    dict(type="ffplug.ProgressHook"),
    dict(type="ffplug.EMAHook", momentum=0.1),
    dict(type="toy_engine.Recorder"),
]
randomness = dict(seed=3)
log_processor = dict(by_epoch=False)
