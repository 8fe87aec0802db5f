"""FlowFormer, stage 3: Sintel, KITTI 2015, HD1K and Things mixed, from the Things stage. Loss weight gamma 0.85.

Multipliers are those of the RAFT line: 100 Sintel clean, 100 final, 200 KITTI 2015, 5 HD1K, 1 Things clean.
"""

from mmengine.config import read_base

with read_base():
    from .flowformer_things import *

model.update(dict(losses=[dict(type="ffplug.SequenceLoss", gamma=0.85, max_flow=400)]))

_load = dict(type="ffplug.LoadFlowPair", masks=False)
_pack = dict(type="ffplug.PackFlowInputs")
_dense = dict(type="ffplug.RAFTDenseAugment", crop_size=(432, 960), do_flip=True, min_scale=-0.2, max_scale=0.6)
_kitti = dict(type="ffplug.RAFTSparseAugment", crop_size=(432, 960), do_flip=True, min_scale=-0.3, max_scale=0.5)
_hd1k = dict(type="ffplug.RAFTSparseAugment", crop_size=(432, 960), do_flip=True, min_scale=-0.5, max_scale=0.2)
_sintel = dict(type="ffplug.SintelDataset", data_root="data/Sintel", split="all", pipeline=[_load, _dense, _pack])

train_dataloader["dataset"] = dict(
    type="ffplug.MixDataset",
    datasets=[
        dict(_sintel, render="clean"),
        dict(_sintel, render="final"),
        dict(type="ffplug.KITTI2015Dataset", data_root="data/KITTI", pipeline=[_load, _kitti, _pack]),
        dict(type="ffplug.HD1KDataset", data_root="data/HD1K", pipeline=[_load, _hd1k, _pack]),
        dict(
            type="ffplug.FlyingThings3DDataset",
            data_root="data/FlyingThings3D",
            render="clean",
            pipeline=[_load, _dense, _pack],
        ),
    ],
    times=[100, 100, 200, 5, 1],
)
optim_wrapper.update(dict(optimizer=dict(type="AdamW", lr=1.25e-4, weight_decay=1e-5, eps=1e-8)))
