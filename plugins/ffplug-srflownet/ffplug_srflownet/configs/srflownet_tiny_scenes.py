"""The first stage of srflownet_tiny: a narrow RAFT learns to match on procedural scenes, without the four losses.

Few scenes, seen often, and motion of several pixels: so small a network stays at zero flow else.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.loaders import *
    from ffplug.configs.models.raft_large import *
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

prepare_data = dict(
    type="ffplug.ProceduralStandIn",
    layout="sintel",
    data_root="data/Sintel-small",
    scenes=64,
    frames=4,
    size=(96, 96),
    difficulty="demo",
    textures="analytic",
)

model["encoder"].update(out_channels=64, widths=(16, 24, 32))
model["context_encoder"].update(out_channels=64, widths=(16, 24, 32), norm="none")
model["cost"].update(levels=2, radius=3)
model["update"].update(cost_channels=98, hidden_channels=32, input_channels=32, motion_channels=46, head_width=48)
model["update"].update(cost_widths=(48,), flow_widths=(32, 16))
model["upsampler"].update(hidden_channels=32, width=48)
model["losses"][0].update(gamma=0.85)
model.update(iterations=4, test_iterations=6)

train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader["dataset"] = dict(
    type="ffplug.SintelDataset",
    data_root="data/Sintel-small",
    split="train",
    render="clean",
    pipeline=[
        dict(type="ffplug.LoadFlowPair"),
        dict(
            type="ffplug.RAFTDenseAugment",
            crop_size=(80, 80),
            min_scale=0.0,
            max_scale=0.3,
            v_flip=0.0,
            eraser_sides=(8, 16),
            mode="clean",
        ),
        dict(type="ffplug.PackFlowInputs"),
    ],
)
val_dataloader.update(num_workers=0, persistent_workers=False)
val_dataloader["dataset"] = dict(
    type="ffplug.SintelDataset", data_root="data/Sintel-small", split="val", render="clean"
)

optim_wrapper.update(type="OptimWrapper")
optim_wrapper["optimizer"].update(lr=1.5e-3, weight_decay=1e-5)
param_scheduler.update(eta_max=1.5e-3, total_steps=810)
train_cfg.update(max_iters=800, val_interval=800)
default_hooks["checkpoint"].update(interval=200)
default_hooks["logger"].update(interval=100)
