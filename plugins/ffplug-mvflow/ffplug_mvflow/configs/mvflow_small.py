"""A narrow MVFlow on small procedural scenes in Sintel's layout, encoded while they are read: minutes on a CPU core.

Its figures say nothing about MVFlow.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.loaders import *
    from ffplug.configs.models.raft_narrow import *
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

    from .online import _encode, _validate

prepare_data = dict(
    type="ffplug.ProceduralStandIn",
    layout="sintel",
    data_root="data/Sintel",
    stand_in="data/Sintel-small",
    scenes=60,
    frames=3,
    size=(112, 144),
    textures="analytic",
    options=dict(speed=(3.0, 30.0)),
    workers=1,
)

model["prior"] = dict(type="ffplug_mvflow.MotionVectorPrior", width=24)
model["losses"].append(dict(type="ffplug_mvflow.MotionVectorLoss"))
model.update(iterations=6)

train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader["dataset"] = dict(
    type="ffplug.SintelDataset",
    data_root="data/Sintel",
    render="clean",
    pipeline=[
        dict(type="ffplug.LoadFlowPair"),
        dict(
            type="ffplug.RAFTDenseAugment",
            crop_size=(64, 80),
            min_scale=-0.1,
            max_scale=0.2,
            mode="clean",
            eraser_sides=(10, 20),
            jitter=None,
        ),
        *_encode,
    ],
)
val_dataloader.update(num_workers=0, persistent_workers=False)
val_dataloader["dataset"].update(render="clean", pipeline=_validate, indices=20)

optim_wrapper["optimizer"].update(lr=1.5e-3)
param_scheduler.update(eta_max=1.5e-3, total_steps=1310)
train_cfg.update(max_iters=1300, val_interval=650)
default_hooks["checkpoint"].update(interval=300)
default_hooks["logger"].update(interval=50)
