"""A linear probe of all three tasks on Aff-Wild2 at data/Aff-Wild2 (second ABAW release), every fourth frame.

Needs ffplug-fpnmaa for the data set and the metric: `pip install ffplug-latentface[affect]`.
"""

from mmengine.config import read_base

with read_base():
    from .latentface_probe_affectnet import *

model.update(tasks=dict(va=2, expr=7, au=12))

for _loader, _split in ((train_dataloader, "train"), (val_dataloader, "validation")):
    _loader["dataset"].update(
        type="ffplug_fpnmaa.AffWild2Dataset",
        data_root="data/Aff-Wild2",
        split=_split,
        tasks=("va", "expr", "au"),
        every=4,
        thin=None,
    )
train_cfg.update(max_iters=40_000, val_interval=2_000)
