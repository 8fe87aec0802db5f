"""A warning when a network has fallen back to the enlarged frame for good."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from torch import nn

from ffplug.errors import ConfigError, did_you_mean
from ffplug_stss.registry import HOOKS


@HOOKS.register_module()
class DeadActivationHook(Hook):
    """Warn when what a part of the model gives is almost zero: ReLUs that are dead do not come back.

    In STSS the residual of the enlarged frame comes from the last part of the decoder. Where its activations die, as
    they do with some starts and rates within 100 steps, the losses look as those of a network that has not begun to
    learn.

    Args:
        module: name of the part in the model.
        threshold: least mean of its absolute values.
        interval: iterations between two looks.

    Raises:
        ConfigError: the model has no such part.

    Example:
        dict(type="ffplug_stss.DeadActivationHook")
    """

    def __init__(self, module: str = "network.up.2", threshold: float = 1e-3, interval: int = 50) -> None:
        if threshold <= 0 or interval < 1:
            raise ConfigError(f"threshold={threshold}, interval={interval}: expected above 0, and at least 1")
        self.module, self.threshold, self.interval = module, threshold, interval
        self._handle: Any = None

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Listen in the iterations in which to look."""
        if (runner.iter + 1) % self.interval:
            return
        model = getattr(runner.model, "module", runner.model)
        parts = dict(model.named_modules())
        if self.module not in parts:
            raise ConfigError(f"DeadActivationHook: no part {self.module!r}{did_you_mean(self.module, parts)}")
        self._handle = parts[self.module].register_forward_hook(self._look)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop listening."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _look(self, part: nn.Module, inputs: Any, output: Any) -> None:
        mean = float(output.detach().abs().mean())
        if mean < self.threshold:
            print_log(
                f"{self.module} gives {mean:.1e} in the mean, below {self.threshold:g}: its ReLUs may be dead, and the "
                "result is the enlarged frame. Start again with a lower rate, or network.balanced=True",
                logger="current",
                level=30,
            )
