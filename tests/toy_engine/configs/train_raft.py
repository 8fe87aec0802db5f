"""RAFT itself, slim, on procedural scenes with the published augmentation."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.models.raft_small import *

model["encoder"].update(out_channels=32, widths=(8, 16, 24))
model["context_encoder"].update(out_channels=32, widths=(8, 16, 24))
model["update"].update(hidden_channels=16, input_channels=16, motion_channels=30, cost_widths=(16,))
model["update"].update(flow_widths=(16, 8), head_width=16)
model["data_preprocessor"].update(noise=(0.0, 5.0))
model.update(iterations=2, test_iterations=2)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(
        type="ffplug.ProceduralFlowDataset",
        length=5,
        size=(96, 112),
        difficulty="demo",
        textures="analytic",
        pipeline=[dict(type="ffplug.RAFTDenseAugment", crop_size=(64, 80)), dict(type="ffplug.PackFlowInputs")],
    ),
    sampler=dict(type="ffplug.FlowSampler"),
)
train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=24)
optim_wrapper = dict(
    type="ffplug.AmpOptimWrapper",
    optimizer=dict(type="AdamW", lr=4e-4, weight_decay=1e-5),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = dict(
    type="OneCycleLR", eta_max=4e-4, total_steps=124, pct_start=0.05, anneal_strategy="linear", by_epoch=False
)
default_hooks = dict(
    checkpoint=dict(type="ffplug.CheckpointHook", interval=4),
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
