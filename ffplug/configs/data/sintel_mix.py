"""RAFT's Sintel mixture: 100 Sintel clean, 100 final, 200 KITTI 2015, 5 HD1K, 1 Things clean; crop 368×768."""

from mmengine.config import read_base

with read_base():
    from .loaders import *

_sintel = [
    dict(type="ffplug.LoadFlowPair"),
    dict(type="ffplug.RAFTDenseAugment", crop_size=(368, 768), min_scale=-0.2, max_scale=0.6, do_flip=True),
    dict(type="ffplug.PackFlowInputs"),
]

train_dataloader["dataset"] = dict(
    type="ffplug.MixDataset",
    times=[100, 100, 200, 5, 1],
    datasets=[
        dict(type="ffplug.SintelDataset", data_root="data/Sintel", render="clean", pipeline=_sintel),
        dict(type="ffplug.SintelDataset", data_root="data/Sintel", render="final", pipeline=_sintel),
        dict(
            type="ffplug.KITTI2015Dataset",
            data_root="data/KITTI2015",
            pipeline=[
                dict(type="ffplug.LoadFlowPair"),
                dict(
                    type="ffplug.RAFTSparseAugment", crop_size=(368, 768), min_scale=-0.3, max_scale=0.5, do_flip=True
                ),
                dict(type="ffplug.PackFlowInputs"),
            ],
        ),
        dict(
            type="ffplug.HD1KDataset",
            data_root="data/HD1K",
            pipeline=[
                dict(type="ffplug.LoadFlowPair"),
                dict(
                    type="ffplug.RAFTSparseAugment", crop_size=(368, 768), min_scale=-0.5, max_scale=0.2, do_flip=True
                ),
                dict(type="ffplug.PackFlowInputs"),
            ],
        ),
        dict(type="ffplug.FlyingThings3DDataset", data_root="data/FlyingThings3D", render="clean", pipeline=_sintel),
    ],
)
