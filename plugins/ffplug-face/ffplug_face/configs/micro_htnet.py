"""HTNet with crops around eyes and mouth corners that its attention can compare: four positions in a block."""

from mmengine.config import read_base

with read_base():
    from .micro_ststnet import *

train_dataloader["dataset"]["feature"].update(
    size=56,
    patches=((0.3, 0.38), (0.7, 0.38), (0.36, 0.75), (0.64, 0.75)),
)
model.update(
    network=dict(type="ffplug_face.HTNet", image_size=56, patch_size=7, dim=66, heads=3, depths=(1, 1, 2)),
    epochs=100,
    optimizer=dict(type="Adam", lr=1e-4),
    mirror=False,
)
