"""What decflow_small starts from: its GMA alone, trained on procedural scenes in Sintel's layout."""

from mmengine.config import read_base

with read_base():
    from .decflow_small import *

prepare_data = dict(
    type="ffplug.ProceduralStandIn",
    layout="sintel",
    data_root="data/Sintel-small",
    scenes=64,
    frames=4,
    size=(96, 96),
    textures="analytic",
    workers=1,
)

model["context_encoder"] = model["context_encoder"]["context"]
del model["decoders"], model["differences"]
model["losses"] = [dict(type="ffplug.SequenceLoss", gamma=0.85, max_flow=400)]

train_dataloader["dataset"].update(type="ffplug.SintelDataset", data_root="data/Sintel-small", render="clean")
train_dataloader["dataset"]["pipeline"][0] = dict(type="ffplug.LoadFlowPair")
train_dataloader["dataset"]["pipeline"][2] = dict(type="ffplug.PackFlowInputs")
val_dataloader["dataset"].update(type="ffplug.SintelDataset", data_root="data/Sintel-small", render="clean")
val_evaluator = [dict(type="ffplug.FlowMetric")]

optim_wrapper["optimizer"].update(lr=1.5e-3)
param_scheduler.update(eta_max=1.5e-3, total_steps=810)
train_cfg.update(max_iters=800, val_interval=400)
default_hooks["checkpoint"].update(interval=400)
