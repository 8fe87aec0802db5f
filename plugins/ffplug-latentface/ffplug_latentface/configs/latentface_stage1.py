"""The autoencoder on crops of CelebA at data/celeba_crops: batches of 64, 30 epochs, no schedule.

The perceptual loss is best with ImageNet's VGG16: set model.perceptual.weights to its file.
"""

from mmengine.config import read_base

with read_base():
    from .latentface_autoencoder import *
    from .training import *

model["perceptual"] = dict(type="ffplug_latentface.VGGPerceptualLoss")

train_dataloader.update(batch_size=64)
train_dataloader["dataset"] = dict(type="ffplug_latentface.CelebACropDataset", data_root="data/celeba_crops")
val_dataloader.update(batch_size=64)
val_dataloader["dataset"] = dict(type="ffplug_latentface.CelebACropDataset", data_root="data/celeba_crops", split="val")
val_evaluator = dict(type="ffplug_latentface.ReconstructionMetric")
train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=76_000, val_interval=2_500)
