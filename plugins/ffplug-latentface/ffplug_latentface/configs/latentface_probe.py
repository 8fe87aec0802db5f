"""A linear probe of expressions on RAF-DB at data/RAF-DB, over both stages' weights: 20 epochs of batches of 32."""

from mmengine.config import read_base

with read_base():
    from .latentface import model as _latentface
    from .training import *

_latentface["pretrained"] = "work_dirs/latentface_stage2/weights.safetensors"
model = dict(type="ffplug_latentface.LinearProbe", encoder=_latentface, tasks=dict(expr=7), embedding="expression")

train_dataloader.update(batch_size=32)
train_dataloader["dataset"] = dict(type="ffplug_latentface.RAFDBDataset", data_root="data/RAF-DB")
val_dataloader.update(batch_size=64)
val_dataloader["dataset"] = dict(type="ffplug_latentface.RAFDBDataset", data_root="data/RAF-DB", split="test")
val_evaluator = dict(type="ffplug_latentface.ExpressionMetric")

optim_wrapper.update(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3))
train_cfg = dict(type="ffplug.IterBasedTrainLoop", max_iters=7_660, val_interval=383)
