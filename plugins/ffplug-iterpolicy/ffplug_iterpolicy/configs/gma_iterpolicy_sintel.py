"""The policy on GMA's Sintel weights: the Sintel mixture, 50,000 steps of batch 6, crop 368×768."""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.sintel_mix import *

    from .gma_iterpolicy import *
    from .training import *

train_dataloader.update(batch_size=6)
optim_wrapper["optimizer"].update(weight_decay=1e-5)
model["losses"][0].update(gamma=0.85)
model.update(freeze_batch_norm=True)
