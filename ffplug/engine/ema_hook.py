"""Averaged weights, without a second copy of what is frozen."""

from __future__ import annotations

from typing import Any

from mmengine import hooks
from mmengine.registry import MODELS
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from ffplug.engine.checkpoint_hook import fit
from ffplug.engine.strategies import forget_gathered, full_state_dict
from ffplug.registry import HOOKS


@HOOKS.register_module()
class EMAHook(hooks.EMAHook):
    """MMEngine's exponential moving average, sharing the parameters that do not train.

    A frozen encoder is its own average, so the copy refers to it: this saves its memory, and the average of what
    checkpoints leave out is never missed on loading. Where a model is sharded over the ranks, each
    averages its shard.

    Args:
        momentum: Weight of the newest parameters, in (0, 1).
        **kwargs: Those of ``mmengine.hooks.EMAHook``.
    """

    def __init__(self, momentum: float = 0.0002, **kwargs: Any) -> None:
        super().__init__(momentum=momentum, **kwargs)
        self.sharded: FullyShardedDataParallel | None = None

    def before_run(self, runner: Any) -> None:
        """Copy the model, and share what is frozen."""
        if hasattr(self, "ema_model"):
            return  # FlexibleRunner loads a checkpoint first
        if isinstance(runner.model, FullyShardedDataParallel):
            # The wrapper keeps the parameters as they are, and shows each rank's shard in them.
            self.sharded = runner.model
            self.src_model = nn.ParameterList(runner.model.parameters())
            self.ema_model = MODELS.build(self.ema_cfg, default_args={"model": self.src_model})
            return
        super().before_run(runner)
        for name, module in self.src_model.named_modules():
            twin: nn.Module = self.ema_model.module.get_submodule(name)
            for key, parameter in module._parameters.items():
                if parameter is not None and not parameter.requires_grad:
                    twin._parameters[key] = parameter

    def _swap_ema_parameters(self) -> None:
        super()._swap_ema_parameters()
        if self.sharded is not None:
            forget_gathered(self.sharded)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Put the averages in the place of the weights, and these beside them."""
        if self.sharded is None:
            super().before_save_checkpoint(runner, checkpoint)
            return
        self._swap_ema_parameters()
        averages = runner.strategy.model_state_dict()
        self._swap_ema_parameters()
        trained = {f"module.{key}": value for key, value in checkpoint["state_dict"].items()}
        checkpoint["ema_state_dict"] = trained | {"steps": self.ema_model.steps}
        checkpoint["state_dict"] = averages

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Resume the average, or start it at the loaded weights; excluded parts keep what they have."""
        self.before_run(runner)
        fit(runner, checkpoint)
        if "ema_state_dict" in checkpoint:
            own = {f"module.{key}": value for key, value in full_state_dict(runner.model).items()}
            checkpoint["ema_state_dict"] = own | checkpoint["ema_state_dict"]
        if self.sharded is None:
            super().after_load_checkpoint(runner, checkpoint)
            return
        runner.strategy.load_model_state_dict(checkpoint["state_dict"])
        for average, shard in zip(self.ema_model.module.parameters(), self.src_model.parameters(), strict=True):
            average.data.copy_(shard.data)
        if "ema_state_dict" in checkpoint and runner._resume:
            trained = dict(checkpoint["ema_state_dict"])
            self.ema_model.steps.copy_(trained.pop("steps"))
            checkpoint["state_dict"] = {key.removeprefix("module."): value for key, value in trained.items()}
