"""The first stage of srflownet_tiny: a narrow RAFT learns to match on procedural scenes, without the four losses."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.loaders import *
    from ffplug.configs.models.raft_small import *
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

model["encoder"].update(out_channels=64, widths=(16, 24, 32))
model["context_encoder"].update(out_channels=64, widths=(16, 24, 32))
model["cost"].update(levels=2)
model["update"].update(cost_channels=98, hidden_channels=32, input_channels=32, cost_widths=(48,))
model["update"].update(flow_widths=(32, 16), motion_channels=46, head_width=48)
model["upsampler"] = dict(type="ffplug.ConvexUpsampler", hidden_channels=32, width=48)
model["losses"] = [dict(type="ffplug.SequenceLoss", gamma=0.85)]
model.update(iterations=4, test_iterations=6)

train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
# The speeds are the difficulty's at 96×96 pixels: a network on a grid of 1/8 learns slowly from less.
train_dataloader["dataset"] = dict(
    type="ffplug.ProceduralFlowDataset",
    length=3200,
    size=(80, 80),
    difficulty="demo",
    textures="analytic",
    options=dict(speed=(6.0, 13.2)),
)
val_dataloader.update(num_workers=0, persistent_workers=False)
val_dataloader["dataset"] = dict(
    type="ffplug.ProceduralFlowDataset", length=50, size=(96, 96), seed=1, difficulty="demo", textures="analytic"
)

optim_wrapper.update(type="OptimWrapper")
optim_wrapper["optimizer"].update(lr=1.5e-3)
param_scheduler.update(eta_max=1.5e-3, total_steps=810)
train_cfg.update(max_iters=800, val_interval=800)
default_hooks["checkpoint"].update(interval=100)
default_hooks["logger"].update(interval=100)
