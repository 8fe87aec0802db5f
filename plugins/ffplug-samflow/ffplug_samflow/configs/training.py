"""What SAMFlow's training stages share, here for the tiny variant: FlowFormer's, in float16, frozen encoder included.

Batch sizes are those of the whole training; with several GPUs, divide them by their number. The Things stage starts
from FlowFormer's Things weights (``ffplug convert --from flowformer``), whose keys fit; the others from the stage
before: ``--cfg-options load_from=work_dirs/samflow_tiny_things/weights.safetensors``.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

    from .samflow_tiny import *

model.update(tile=dict(size=(432, 960)))
model["data_preprocessor"].update(noise=(0, 5))
model["context_encoder"]["sam"].update(checkpoint="mobile_sam", dtype="float16")
train_cfg.update(max_iters=120_000)
param_scheduler.update(total_steps=120_100, eta_max=1.25e-4)
optim_wrapper.update(dtype="float16")
optim_wrapper["optimizer"].update(lr=1.25e-4, weight_decay=1e-4)
