"""The first stage of srflownet_tiny: a narrow RAFT learns to match on procedural scenes, without the four losses."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.loaders import *
    from ffplug.configs.models.raft_small import *
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

model["encoder"].update(out_channels=64, widths=(16, 24, 32))
model["context_encoder"].update(out_channels=96, widths=(16, 24, 32))
model["cost"].update(levels=3)
model["update"].update(cost_channels=147, hidden_channels=48, input_channels=48, cost_widths=(64,))
model["update"].update(flow_widths=(32, 24), motion_channels=48, head_width=64)
model["upsampler"] = dict(type="ffplug.ConvexUpsampler", hidden_channels=48)
model["losses"] = [dict(type="ffplug.SequenceLoss", gamma=0.85)]
model.update(iterations=3, test_iterations=6)

train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader["dataset"] = dict(
    type="ffplug.ProceduralFlowDataset", length=9600, size=(64, 64), difficulty="demo", textures="analytic"
)
val_dataloader.update(num_workers=0, persistent_workers=False)
val_dataloader["dataset"] = dict(
    type="ffplug.ProceduralFlowDataset", length=50, size=(96, 96), seed=1, difficulty="demo", textures="analytic"
)

optim_wrapper.update(type="OptimWrapper")
# With a quicker warm-up and decay the network stays at zero flow.
optim_wrapper["optimizer"].update(lr=1e-3, weight_decay=1e-5)
param_scheduler.update(eta_max=1e-3, total_steps=2410)
train_cfg.update(max_iters=800, val_interval=800)
default_hooks["checkpoint"].update(interval=100)
default_hooks["logger"].update(interval=100)
