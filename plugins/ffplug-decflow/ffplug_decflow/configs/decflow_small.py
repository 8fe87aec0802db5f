"""A narrow DecFlow on small sequences of a procedural head: the whole chain in minutes on two CPU cores.

Its figures say nothing about DecFlow. The semantic encoder is narrow, random and frozen.
"""

from mmengine.config import read_base

with read_base():
    from .decflow_ffn_stage1 import *

prepare_data.update(data_root="data/FacialFlowNet-small", scenes=12, frames=5, size=(96, 112), workers=1)

model["encoder"].update(out_channels=32, widths=(8, 16, 24))
model["context_encoder"]["context"].update(out_channels=32, widths=(8, 16, 24))
model["context_encoder"]["semantic"] = dict(type="ffplug_decflow.FacialSemanticEncoder", width=8, depths=(1, 1))
_narrow = dict(hidden_channels=16, input_channels=16, motion_channels=30, head_width=16)
_narrow.update(cost_widths=(16,), flow_widths=(16, 8))
model["update"].update(_narrow)
model["upsampler"].update(hidden_channels=16, width=32)
model["decoders"]["head"]["update"].update(_narrow)
model["decoders"]["head"]["upsampler"].update(hidden_channels=16, width=32)
model.update(iterations=4, test_iterations=6)

train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader["dataset"].update(data_root="data/FacialFlowNet-small")
train_dataloader["dataset"]["pipeline"][1].update(crop_size=(80, 96), eraser_sides=(10, 20))
val_dataloader.update(num_workers=0, persistent_workers=False)
val_dataloader["dataset"].update(data_root="data/FacialFlowNet-small")

optim_wrapper["optimizer"].update(lr=1e-3)
param_scheduler.update(eta_max=1e-3, total_steps=310)
train_cfg.update(max_iters=300, val_interval=150)
default_hooks["checkpoint"].update(interval=150)
default_hooks["logger"].update(interval=25)
