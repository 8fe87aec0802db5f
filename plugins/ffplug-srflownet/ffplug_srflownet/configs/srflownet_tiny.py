"""A first training of SRFlowNet on a CPU: a narrow network, and small procedural Gaussian heads in SRFlow's layout.

It ends within some minutes on two cores. It shows that all parts run: 200 iterations are too few to beat zero flow.
"""

from mmengine.config import read_base

with read_base():
    from .srflownet_srflow import *

prepare_data.update(data_root="data/SRFlow-tiny", scenes=8, frames=6, size=(112, 96))

model["encoder"].update(out_channels=64, widths=(16, 24, 32))
model["context_encoder"].update(out_channels=64, widths=(16, 24, 32))
model["cost"].update(radius=3, levels=3)
model["update"].update(cost_channels=147, hidden_channels=32, input_channels=32)
model["update"].update(kernel_sizes=(1, 7), update_kernel_sizes=(1, 5))
model["upsampler"].update(hidden_channels=32)
model.update(iterations=3, test_iterations=4)

train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader["dataset"].update(data_root="data/SRFlow-tiny", stride=(1, 2), direction="both")
train_dataloader["dataset"]["pipeline"][1].update(
    crop_size=(96, 80), min_scale=0.0, max_scale=0.3, eraser_sides=(10, 30)
)
val_dataloader.update(num_workers=0, persistent_workers=False)
val_dataloader["dataset"].update(data_root="data/SRFlow-tiny")

optim_wrapper.update(type="OptimWrapper")
optim_wrapper["optimizer"].update(lr=8e-4)
param_scheduler.update(eta_max=8e-4, total_steps=210)
train_cfg.update(max_iters=200, val_interval=100)
default_hooks["checkpoint"].update(interval=100)
default_hooks["logger"].update(interval=20)
