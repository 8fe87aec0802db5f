"""Training on SRFlow, from weights of FlyingThings3D. The paper's schedule is not public: all of this is our reading.

50,000 iterations of batch 6, crop 448×448, rate 1e-4, flips to the side alone.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.loaders import *
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

prepare_data = dict(
    type="ffplug.ProceduralStandIn", layout="srflow", data_root="data/SRFlow", scenes=24, frames=10, size=(512, 448)
)

train_dataloader.update(batch_size=6)
train_dataloader["dataset"] = dict(
    type="ffplug_srflownet.SRFlowDataset",
    data_root="data/SRFlow",
    split="train",
    pipeline=[
        dict(type="ffplug.LoadFlowPair"),
        dict(
            type="ffplug.RAFTDenseAugment",
            crop_size=(448, 448),
            min_scale=-0.2,
            max_scale=0.5,
            do_flip=True,
            v_flip=0.0,
            mode="clean",
        ),
        dict(type="ffplug.PackFlowInputs"),
    ],
)
val_dataloader["dataset"] = dict(type="ffplug_srflownet.SRFlowDataset", data_root="data/SRFlow", split="test")
val_evaluator = [dict(type="ffplug.FlowMetric"), dict(type="ffplug_srflownet.FacialFlowMetric")]

optim_wrapper["optimizer"].update(lr=1e-4, weight_decay=1e-5)
param_scheduler.update(eta_max=1e-4, total_steps=50_100)
train_cfg.update(max_iters=50_000, val_interval=5000)
