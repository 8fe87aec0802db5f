"""Gradients and the optimiser's state sharded over all processes by DeepSpeed's ZeRO (docs/machines.md)."""

runner_type = "FlexibleRunner"
strategy = dict(type="ffplug.DeepSpeedStrategy", zero_optimization=dict(stage=1))
