"""The facial stage in small, on a CPU: a narrow RAFT with the four losses, on small procedural Gaussian heads.

It goes on from the weights of srflownet_tiny_scenes. SKFlow's large depth-wise kernels train four times slower.
"""

from mmengine.config import read_base

with read_base():
    from .regularisers import losses as _losses
    from .srflownet_tiny_scenes import *

prepare_data = dict(
    type="ffplug.ProceduralStandIn",
    layout="srflow",
    data_root="data/SRFlow-tiny",
    scenes=40,
    frames=8,
    size=(112, 96),
    options=dict(fill=(0.75, 1.0)),
)
load_from = "work_dirs/srflownet_tiny_scenes/weights.safetensors"

model["losses"].extend(_losses)

train_dataloader["dataset"] = dict(
    type="ffplug_srflownet.SRFlowDataset",
    data_root="data/SRFlow-tiny",
    split="train",
    stride=(1, 2),
    direction="both",
    pipeline=[
        dict(type="ffplug.LoadFlowPair"),
        dict(
            type="ffplug_srflownet.MaskedDenseAugment",
            crop_size=(80, 80),
            min_scale=-0.1,
            max_scale=0.3,
            v_flip=0.0,
            eraser_sides=(10, 30),
            mode="clean",
        ),
        dict(type="ffplug.PackFlowInputs"),
    ],
)
val_dataloader["dataset"] = dict(type="ffplug_srflownet.SRFlowDataset", data_root="data/SRFlow-tiny", split="test")
val_evaluator = [dict(type="ffplug.FlowMetric"), dict(type="ffplug_srflownet.FacialFlowMetric")]

optim_wrapper["optimizer"].update(lr=1e-3, weight_decay=1e-5)
param_scheduler.update(eta_max=1e-3, total_steps=210)
train_cfg.update(max_iters=200, val_interval=200)
