"""A narrow RAFT on small procedural clips, easy ones and hard ones: the base that ``iterpolicy_small`` trains on.

Speeds are spread over a factor of 40, evenly on a log scale, and the look-up reaches two cells of four pixels, so that
some pairs need one iteration and others many.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.chairs import *
    from ffplug.configs.models.raft_small import *
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

model["encoder"].update(out_channels=64, widths=(16, 32))
model["context_encoder"].update(out_channels=64, widths=(16, 32))
model["cost"].update(levels=1, radius=2)
model["update"].update(
    cost_channels=25,
    hidden_channels=32,
    input_channels=32,
    cost_widths=(48,),
    flow_widths=(32, 16),
    motion_channels=46,
    head_width=48,
)
model["upsampler"] = dict(type="ffplug.ConvexUpsampler", hidden_channels=32, width=48, factor=4)
model.update(iterations=8, test_iterations=12)

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
