"""UGSP on Vimeo90K with a budget of 0.6: 20.4 G multiply-adds of 30.6 at 448×256.

Its labels keep as many pixels: ``ffplug uncertainty-labels ... --rates 0.847 0.69 0.521
--out data/vimeo_triplet/labels_60``.
"""

from mmengine.config import read_base

with read_base():
    from .ugsp_vimeo import *

model["losses"][3].update(target=0.6)
train_dataloader["dataset"].update(labels="labels_60")
