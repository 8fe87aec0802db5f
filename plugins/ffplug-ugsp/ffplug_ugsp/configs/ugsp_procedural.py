"""A narrow UGSP on small procedural triplets in Vimeo90K's layout: minutes on a CPU core, and nothing to fetch.

Labels are where the branch that is not pruned errs most, so there is no first phase. Triplets of your own at
data/vimeo_triplet take the procedural ones' place. Its figures say nothing about UGSP.
"""

from mmengine.config import read_base

with read_base():
    from .ugsp import *
    from .vimeo import *

prepare_data = dict(
    type="ffplug.ProceduralStandIn",
    layout="vimeo-triplet",
    data_root="data/vimeo_triplet",
    stand_in="data/vimeo_triplet-small",
    scenes=60,
    frames=3,
    size=(96, 128),
    textures="analytic",
    workers=1,
)

model["network"].update(widths=(12, 16, 24, 32), depths=(2, 2, 2, 2), lead=3.0)
model["losses"][4].update(source="error")
train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader["dataset"]["pipeline"][1].update(crop=64)
val_dataloader.update(num_workers=0, persistent_workers=False)
val_dataloader["dataset"].update(split="test")
optim_wrapper["optimizer"].update(lr=1e-3)
optim_wrapper.update(clip_grad=dict(max_norm=1.0))
param_scheduler[0].update(start_factor=0.05, end=50)
param_scheduler[1].update(begin=50, end=2000)
train_cfg.update(max_iters=2000, val_interval=500)
default_hooks["checkpoint"].update(interval=500)
default_hooks["logger"].update(interval=50)
# Masks start open. In the last third they are 0 or 1 and then without noise, as they are when frames are produced.
custom_hooks.append(
    dict(
        type="ffplug_ugsp.PiecewiseHook",
        schedules={
            "network.temperature": [(0, 1.0), (1300, 0.4)],
            "network.mask_mode": [(0, "soft"), (1300, "straight"), (1700, "certain")],
            "losses.3.scale": [(0, 0.0), (600, 1.0)],
            "losses.4.scale": [(0, 0.0), (600, 1.0)],
        },
    )
)
