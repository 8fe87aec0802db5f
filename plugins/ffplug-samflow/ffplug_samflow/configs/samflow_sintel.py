"""The front door: SAMFlow-tiny on Sintel, in a schedule that one ordinary GPU finishes overnight.

Not the published recipe (that is samflow_tiny_sintel, after Chairs and Things): it trains from scratch on Sintel alone.
A machine without a GPU takes the reduced settings of samflow_sintel_cpu; a machine without Sintel writes procedural
scenes in its layout; without MobileSAM's weights the frozen encoder stays random.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.data.loaders import *
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

    from .samflow_tiny import *

on_cpu = "ffplug_samflow.configs.samflow_sintel_cpu"

prepare_data = dict(
    type="ffplug.ProceduralStandIn", layout="sintel", data_root="data/Sintel", size=(304, 416), scenes=100, workers=4
)

model["data_preprocessor"].update(multiple=16)
model["context_encoder"]["sam"].update(
    checkpoint="mobile_sam",
    missing_checkpoint="warn",
)
model["losses"] = [dict(type="ffplug.SequenceLoss", gamma=0.85, max_flow=400)]
model.update(iterations=8, test_iterations=12)

train_dataloader["batch_size"] = 4
train_dataloader["dataset"] = dict(
    type="ffplug.SintelDataset",
    data_root="data/Sintel",
    render="both",
    split="train",
    pipeline=[
        dict(type="ffplug.LoadFlowPair"),
        dict(
            type="ffplug.RAFTDenseAugment",
            crop_size=(288, 384),
            min_scale=-0.2,
            max_scale=0.6,
            do_flip=True,
            mode="clean",
        ),
        dict(type="ffplug.PackFlowInputs"),
    ],
)
val_dataloader["dataset"].update(split="val")

optim_wrapper["optimizer"].update(lr=2.5e-4, weight_decay=1e-5)
param_scheduler.update(eta_max=2.5e-4, total_steps=50_100)
train_cfg.update(max_iters=50_000, val_interval=2500)
default_hooks["checkpoint"].update(interval=2500)
