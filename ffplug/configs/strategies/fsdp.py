"""Parameters, gradients and the optimiser's state sharded over all processes (docs/machines.md)."""

runner_type = "FlexibleRunner"
strategy = dict(type="ffplug.FSDPStrategy")
