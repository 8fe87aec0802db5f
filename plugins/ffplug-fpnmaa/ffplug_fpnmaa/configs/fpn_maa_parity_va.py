"""The published teacher of valence and arousal: every fifth frame of Aff-Wild2, and AffectNet.

20 epochs of a quarter of the batches are about 24,000 steps; the published rate would fall after 50 epochs only.
A config of one's own that inherits from this one takes ImageNet weights by ``model["backbone"]["init_cfg"] =
dict(type="Pretrained", checkpoint=..., prefix="backbone.")``.
"""

from mmengine.config import read_base

with read_base():
    from .affwild2 import *
    from .fpn_maa_va import *

train_dataloader["dataset"] = dict(
    type="ffplug.MixDataset",
    datasets=[
        dict(**train_dataloader["dataset"], tasks="va", every=5),
        dict(
            type="ffplug_fpnmaa.AffectNetDataset",
            data_root="data/AffectNet",
            tasks="va",
            pipeline=train_dataloader["dataset"]["pipeline"],
        ),
    ],
)
prepare_data.append(
    dict(
        type="ffplug.ProceduralStandIn",
        layout="affectnet",
        data_root="data/AffectNet",
        scenes=12,
        frames=16,
        size=(112, 112),
        textures="analytic",
    )
)
val_dataloader["dataset"].update(tasks="va")
optim_wrapper = dict(
    type="ffplug.AmpOptimWrapper", optimizer=dict(type="SGD", lr=3e-4, momentum=0.9, weight_decay=1e-4)
)
train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=24_000, val_interval=1200)
default_hooks["checkpoint"].update(interval=1200)
