"""FlowFormer, stage 1: FlyingChairs, from ImageNet weights. Batch 8, 120,000 steps, peak rate 2.5e-4.

timm's ``twins_svt_large`` weights have to be put at ``weights/twins_svt_large.safetensors`` (see the plugin's README).
"""

from mmengine.config import read_base

with read_base():
    from .flowformer import *
    from .sintel_test import *
    from .training import *

model.update(
    dict(
        data_preprocessor=dict(type="ffplug.FlowDataPreprocessor", pad_mode="sintel", noise=(0, 5)),
        encoder=dict(type="ffplug_flowformer.TwinsFeatures", weights="weights/twins_svt_large.safetensors"),
        context_encoder=dict(type="ffplug_flowformer.TwinsFeatures", weights="weights/twins_svt_large.safetensors"),
    )
)
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type="pseudo_collate"),
    sampler=dict(type="ffplug.FlowSampler"),
    dataset=dict(
        type="ffplug.FlyingChairsDataset",
        data_root="data/FlyingChairs",
        split="train",
        pipeline=[
            dict(type="ffplug.LoadFlowPair", masks=False),
            dict(type="ffplug.RAFTDenseAugment", crop_size=(368, 496), min_scale=-0.1, max_scale=1.0, do_flip=True),
            dict(type="ffplug.PackFlowInputs"),
        ],
    ),
)
optim_wrapper.update(dict(optimizer=dict(type="AdamW", lr=2.5e-4, weight_decay=1e-4, eps=1e-8)))
param_scheduler.update(dict(eta_max=2.5e-4))
