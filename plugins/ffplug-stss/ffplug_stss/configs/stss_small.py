"""A narrow STSS from scratch on procedural scenes: a recipe that leaves bilinear within minutes on a CPU.

Against the published training: a start that keeps the signal alive through the gates and sees differences of
neighbours, errors as PSNR counts them, less weight on holes, masks drawn in crops where there is most to learn, mirror
images, and the frame's border, not black, where a warp came from outside.
"""

from mmengine.config import read_base

with read_base():
    from .stss_procedural import *

model["network"].update(widths=(12, 16), balanced=True)
model["network"]["reshading"].update(inputs=16, channels=32, key_channels=16)
model["losses"] = [dict(type="ffplug_stss.ReshadingLoss", norm="log", hole_weight=0.3)]

prepare_data.update(data_root="data/STSS-border", scenes=24, frames=4, size=(128, 224), options=dict(outside="repeat"))
train_dataloader["dataset"].update(
    data_root="data/STSS-border",
    pipeline=[
        dict(type="ffplug_stss.LoadRecord"),
        dict(type="ffplug_stss.RandomCropPair", size=(64, 64), tries=2),
        dict(type="ffplug_stss.RandomMirror"),
        dict(type="ffplug_stss.RandomReshadingMask"),
        dict(type="ffplug_stss.PackSupersample", outside="repeat"),
    ],
)
val_dataloader["dataset"].update(
    data_root="data/STSS-border",
    pipeline=[dict(type="ffplug_stss.LoadRecord"), dict(type="ffplug_stss.PackSupersample", outside="repeat")],
)

optim_wrapper.update(optimizer=dict(type="Adam", lr=2e-3, eps=3e-6), clip_grad=dict(max_norm=30.0))
param_scheduler = [
    dict(type="LinearLR", by_epoch=False, start_factor=0.05, end=50),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=50, T_max=850),
]
train_cfg.update(max_iters=900, val_interval=450)
default_hooks["checkpoint"].update(interval=225)
