"""A narrow first stage on portraits, written once to data/portraits in the layout of CelebA's crops."""

from mmengine.config import read_base

with read_base():
    from .latentface_stage1 import *

prepare_data = dict(
    type="ffplug.ProceduralStandIn",
    layout="celeba-crops",
    data_root="data/portraits",
    scenes=60,
    frames=16,
    size=(64, 64),
    textures="analytic",
)

model.update(width=16, code=64)
train_dataloader.update(batch_size=8, num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader["dataset"].update(data_root="data/portraits")
val_dataloader.update(batch_size=8, num_workers=0, persistent_workers=False)
val_dataloader["dataset"].update(data_root="data/portraits")
optim_wrapper.update(type="OptimWrapper")
optim_wrapper["optimizer"].update(lr=3e-4)
train_cfg.update(max_iters=2_000, val_interval=500)
default_hooks["checkpoint"].update(interval=500)
default_hooks["logger"].update(interval=50)
