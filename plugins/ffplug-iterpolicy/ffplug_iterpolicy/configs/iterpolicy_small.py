"""An iteration policy for the narrow RAFT of ``iterpolicy_small_base``, in minutes on a CPU.

Its figures say nothing about the published networks. It starts from that recipe's weights:
``--cfg-options load_from=work_dirs/iterpolicy_small_base/weights.safetensors``.
"""

from mmengine.config import read_base

with read_base():
    from .iterpolicy_small_base import *

model.update(
    policy=dict(type="ffplug_iterpolicy.ContextIterationPolicy", hidden_channels=32),
    frozen=["encoder", "context_encoder", "cost", "decoder.update", "decoder.upsampler"],
    iterations=12,
)
model["losses"].append(dict(type="ffplug_iterpolicy.IterationPolicyLoss"))
custom_hooks.append(dict(type="ffplug_iterpolicy.PolicyHook"))
val_evaluator = [dict(type="ffplug.FlowMetric"), dict(type="ffplug_iterpolicy.StepsMetric")]

optim_wrapper.update(type="OptimWrapper")
optim_wrapper["optimizer"].update(lr=4e-3)
param_scheduler.update(eta_max=4e-3, total_steps=610)
train_cfg.update(max_iters=600, val_interval=600)
default_hooks["checkpoint"].update(interval=200)
