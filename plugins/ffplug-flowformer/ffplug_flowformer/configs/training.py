"""What FlowFormer's training stages share: one cycle of AdamW in float32, noise of one deviation per sample in 0..5.

Batch sizes are those of the whole training; with several GPUs, divide them by their number. A stage that follows
another starts from its weights: ``--cfg-options load_from=work_dirs/flowformer_chairs/weights.safetensors``.
"""

from mmengine.config import read_base

with read_base():
    from ffplug.configs.runtime import *
    from ffplug.configs.schedule import *

    from .flowformer import *

model["data_preprocessor"].update(noise=(0, 5))
train_cfg.update(max_iters=120_000)
param_scheduler.update(total_steps=120_100, eta_max=1.25e-4)
optim_wrapper.update(type="OptimWrapper")
optim_wrapper["optimizer"].update(lr=1.25e-4, weight_decay=1e-4)
