"""Averaged weights, without a second copy of what is frozen."""

from __future__ import annotations

from typing import Any

from mmengine import hooks
from torch import nn

from ffplug.engine.checkpoint_hook import fit
from ffplug.registry import HOOKS


@HOOKS.register_module()
class EMAHook(hooks.EMAHook):
    """MMEngine's exponential moving average, sharing the parameters that do not train.

    A frozen encoder is its own average, so the copy refers to it: this saves its memory, and the average of what
    checkpoints leave out is never missed on loading.

    Args:
        momentum: Weight of the newest parameters, in (0, 1).
        **kwargs: Those of ``mmengine.hooks.EMAHook``.
    """

    def __init__(self, momentum: float = 0.0002, **kwargs: Any) -> None:
        super().__init__(momentum=momentum, **kwargs)

    def before_run(self, runner: Any) -> None:
        """Copy the model, and share what is frozen."""
        super().before_run(runner)
        for name, module in self.src_model.named_modules():
            twin: nn.Module = self.ema_model.module.get_submodule(name)
            for key, parameter in module._parameters.items():
                if parameter is not None and not parameter.requires_grad:
                    twin._parameters[key] = parameter

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Resume the average, or start it at the loaded weights; excluded parts keep what they have."""
        fit(runner, checkpoint)
        if "ema_state_dict" in checkpoint:
            own = {f"module.{key}": value for key, value in self.src_model.state_dict().items()}
            checkpoint["ema_state_dict"] = own | checkpoint["ema_state_dict"]
        super().after_load_checkpoint(runner, checkpoint)
