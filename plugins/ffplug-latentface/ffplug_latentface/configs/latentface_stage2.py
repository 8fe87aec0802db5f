"""Representation diffusion on VoxCeleb's frames at data/VoxCeleb1, over the first stage's weights.

A batch is 16 frames of each of 8 persons. As published it was one person, target="mean", weighting="snr".
"""

from mmengine.config import read_base

with read_base():
    from .latentface import *
    from .training import *

model["autoencoder"]["pretrained"] = "work_dirs/latentface_stage1/weights.safetensors"

train_dataloader.update(batch_size=8)
train_dataloader["dataset"] = dict(type="ffplug_face.FaceVideoDataset", data_root="data/VoxCeleb1")
val_dataloader["dataset"] = dict(type="ffplug_face.FaceVideoDataset", data_root="data/VoxCeleb1", split="val")
val_evaluator = dict(type="ffplug_latentface.VerificationMetric")

optim_wrapper["clip_grad"] = dict(max_norm=1.0)
param_scheduler = dict(type="CosineAnnealingLR", by_epoch=False, T_max=100_000, eta_min=1e-5)
train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=100_000, val_interval=5_000)
custom_hooks.append(dict(type="ffplug.EMAHook", momentum=0.001))
