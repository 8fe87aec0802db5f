"""A narrow MVFlow on small procedural scenes in Sintel's layout, encoded while they are read: minutes on a CPU core.

Its figures say nothing about MVFlow.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.loaders import *
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
    options=dict(speed=(3.0, 16.0)),
    workers=1,
)

model = dict(
    type="ffplug.RecurrentFlowEstimator",
    data_preprocessor=dict(type="ffplug.FlowDataPreprocessor", pad_mode="sintel"),
    encoder=dict(type="ffplug.ResidualEncoder", out_channels=64, norm="instance", widths=(16, 24, 32)),
    context_encoder=dict(type="ffplug.ResidualEncoder", out_channels=64, norm="none", widths=(16, 24, 32)),
    cost=dict(type="ffplug.AllPairsCorrelation", levels=2, radius=3),
    update=dict(
        type="ffplug.RAFTUpdate",
        cost_channels=98,
        hidden_channels=32,
        input_channels=32,
        cost_widths=(48,),
        flow_widths=(32, 16),
        motion_channels=48,
        head_width=48,
        separable=False,
    ),
    upsampler=dict(type="ffplug.ConvexUpsampler", hidden_channels=32, width=64),
    prior=dict(type="ffplug_mvflow.MotionVectorPrior", width=24),
    losses=[dict(type="ffplug.SequenceLoss"), dict(type="ffplug_mvflow.MotionVectorLoss")],
    iterations=4,
    test_iterations=6,
)

train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader["dataset"] = dict(
    type="ffplug.SintelDataset",
    data_root="data/Sintel",
    render="clean",
    pipeline=[
        dict(type="ffplug.LoadFlowPair"),
        dict(
            type="ffplug.RAFTDenseAugment",
            crop_size=(80, 80),
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
param_scheduler.update(eta_max=1.5e-3, total_steps=1210)
train_cfg.update(max_iters=1200, val_interval=600)
default_hooks["checkpoint"].update(interval=300)
default_hooks["logger"].update(interval=50)
