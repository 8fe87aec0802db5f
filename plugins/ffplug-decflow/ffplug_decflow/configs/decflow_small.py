"""A narrow DecFlow on small drawn faces, for a CPU; it starts from decflow_small_start (``load_from``, see README).

Its figures say nothing about DecFlow. The semantic encoder is narrow, random and frozen. The heads turn less than in
the layout's own sequences, so that expression is a good part of the motion.
"""

from mmengine.config import read_base

with read_base():
    from .decflow_ffn_stage1 import *

prepare_data.update(
    data_root="data/FacialFlowNet-small",
    scenes=160,
    frames=2,
    size=(96, 96),
    workers=1,
    options=dict(
        eases=("smooth",),
        intensity=(0.6, 1.0),
        extra_actions=8,
        yaw_pitch_roll=(2.0, 1.5, 1.5),
        translation=0.003,
        fill=(0.8, 1.0),
    ),
)

model["encoder"].update(out_channels=64, widths=(16, 24, 32))
model["context_encoder"]["context"].update(out_channels=64, widths=(16, 24, 32), norm="none")
model["context_encoder"]["semantic"] = dict(type="ffplug_decflow.FacialSemanticEncoder", width=8, depths=(1, 1))
model["cost"].update(levels=2, radius=3)
_narrow = dict(cost_channels=98, hidden_channels=32, input_channels=32, motion_channels=46, head_width=48)
_narrow.update(cost_widths=(48,), flow_widths=(32, 16))
model["update"].update(_narrow)
model["upsampler"].update(hidden_channels=32, width=48)
model["decoders"]["head"]["update"].update(_narrow)
model["decoders"]["head"]["upsampler"].update(hidden_channels=32, width=48)
model.update(iterations=4, test_iterations=6)

train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader["dataset"].update(data_root="data/FacialFlowNet-small")
train_dataloader["dataset"]["pipeline"][1].update(
    crop_size=(80, 80), min_scale=0.0, max_scale=0.3, v_flip=0.0, eraser_sides=(8, 16)
)
val_dataloader.update(num_workers=0, persistent_workers=False)
val_dataloader["dataset"].update(data_root="data/FacialFlowNet-small")

optim_wrapper.update(type="OptimWrapper")
optim_wrapper["optimizer"].update(lr=1e-3)
param_scheduler.update(eta_max=1e-3, total_steps=810)
train_cfg.update(max_iters=800, val_interval=200)
default_hooks["checkpoint"].update(interval=200)
default_hooks["logger"].update(interval=50)
log_processor["window_size"] = 50
