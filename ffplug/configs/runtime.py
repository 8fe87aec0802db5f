"""What every run shares: environment, hooks, logs, pictures."""

randomness = dict(seed=1234)

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=100, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="ffplug.CheckpointHook", interval=5000, max_keep_ckpts=3),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    runtime_info=dict(type="RuntimeInfoHook"),
)

custom_hooks = [
    dict(type="ffplug.NaNGuardHook"),
    dict(type="ffplug.ProgressHook"),
    dict(type="ffplug.FlowVisualizationHook"),
    dict(type="ffplug.ReportHook"),
]

log_processor = dict(by_epoch=False, window_size=100)
log_level = "INFO"

visualizer = dict(
    type="ffplug.FlowVisualizer",
    vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")],
)
