"""A narrow STSS from scratch on procedural scenes: a recipe that leaves bilinear within minutes on a CPU.

Against the published training: a start that keeps the signal alive through the gates, squared errors, less weight on
holes, masks drawn in the crop, Adam with a larger epsilon, which leaves parts alone whose gradient is still noise, and
the frame's border, not black, where a warp came from outside.
"""

from mmengine.config import read_base

with read_base():
    from .stss_procedural import *

model["network"].update(widths=(12, 16), balanced=True)
model["network"]["reshading"].update(inputs=16, channels=32, key_channels=16)
model["losses"] = [dict(type="ffplug_stss.ReshadingLoss", norm="l2", hole_weight=0.3)]

prepare_data.update(data_root="data/STSS-narrow", scenes=12, frames=4, size=(128, 224))
train_dataloader["dataset"].update(
    data_root="data/STSS-narrow",
    pipeline=[
        dict(type="ffplug_stss.LoadRecord"),
        dict(type="ffplug_stss.RandomCropPair", size=(64, 64)),
        dict(type="ffplug_stss.RandomReshadingMask"),
        dict(type="ffplug_stss.PackSupersample", outside="repeat"),
    ],
)
val_dataloader["dataset"].update(
    data_root="data/STSS-narrow",
    pipeline=[dict(type="ffplug_stss.LoadRecord"), dict(type="ffplug_stss.PackSupersample", outside="repeat")],
)

optim_wrapper.update(optimizer=dict(type="Adam", lr=2e-3, eps=1e-5), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type="LinearLR", by_epoch=False, start_factor=0.05, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=30, T_max=770),
]
train_cfg.update(max_iters=800, val_interval=400)
default_hooks["checkpoint"].update(interval=200)
