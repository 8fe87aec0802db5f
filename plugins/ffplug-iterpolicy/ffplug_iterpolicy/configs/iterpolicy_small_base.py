"""A narrow RAFT on small procedural clips, easy ones and hard ones: the base that ``iterpolicy_small`` trains on.

Speeds are spread over a factor of 40, evenly on a log scale, so that some pairs need one iteration and others many.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.chairs import *
    from ffplug.configs.models.raft_narrow import *
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

prepare_data = dict(
    type="ffplug.ProceduralStandIn",
    layout="chairs",
    data_root="data/easy_and_hard",
    scenes=900,
    size=(80, 112),
    textures="analytic",
    options=dict(speed=(1.0, 40.0)),
    workers=2,
)

train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader["dataset"].update(data_root="data/easy_and_hard")
train_dataloader["dataset"]["pipeline"][1].update(
    crop_size=(64, 80), min_scale=-0.1, max_scale=0.2, mode="clean", eraser_sides=(8, 16), jitter=None
)
val_dataloader.update(num_workers=0, persistent_workers=False)
val_dataloader["dataset"].update(data_root="data/easy_and_hard")

optim_wrapper["optimizer"].update(lr=1.5e-3)
param_scheduler.update(eta_max=1.5e-3, total_steps=2510)
train_cfg.update(max_iters=2500, val_interval=2500)
default_hooks["checkpoint"].update(interval=500)
default_hooks["logger"].update(interval=50)
