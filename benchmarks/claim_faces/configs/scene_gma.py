"""A narrow GMA on procedural scenes; tested on faces."""

from mmengine.config import read_base

with read_base():
    from ffplug_decflow.configs.decflow_small_start import *

prepare_data = None
val_dataloader["dataset"] = dict(type="ffplug_decflow.FacialFlowNetDataset", data_root="data", split="val")
custom_hooks = [dict(type="ffplug.NaNGuardHook"), dict(type="ffplug.ProgressHook")]
