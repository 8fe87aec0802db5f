"""How a model is spread over the ranks: MMEngine's strategies, with what recipes need and they lack."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from mmengine import _strategy
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    FullyShardedDataParallel,
    StateDictType,
)
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

from ffplug.errors import ConfigError
from ffplug.registry import STRATEGIES


@STRATEGIES.register_module()
class FSDPStrategy(_strategy.FSDPStrategy):
    """Shard parameters, gradients and the optimiser's state over the ranks, by torch's FullyShardedDataParallel.

    MMEngine's strategy insists on CUDA, clips the gradient by the norm of a rank's own shard, scales float16 losses
    per rank, and resumes no optimiser with torch 2.1 or newer; this one does. The whole model is one unit unless
    ``model_wrapper`` has an ``auto_wrap_policy``, for parts may call each other's other methods than ``forward``.
    Checkpoints hold whole tensors, so testing, inference and other trainings start from them.

    Args:
        model_wrapper: Arguments of ``MMFullyShardedDataParallel``, such as ``sharding_strategy='SHARD_GRAD_OP'`` or
            ``auto_wrap_policy``.
        **kwargs: Those of ``mmengine._strategy.FSDPStrategy``, but for ``state_dict_cfg``.

    Raises:
        ConfigError: There is one process alone.
    """

    def __init__(self, *, model_wrapper: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        wrapper = {"type": "MMFullyShardedDataParallel", "use_orig_params": True, **(model_wrapper or {})}
        device = torch.device(get_device())
        if device.type == "cpu":
            wrapper["device_id"] = device
        super().__init__(model_wrapper=wrapper, **kwargs)
        if not is_distributed():
            raise ConfigError(f"{type(self).__name__} works over several processes: start them by torchrun")

    def _init_state_dict_cfg(self, state_dict_cfg: Any) -> None:
        self.state_dict_type = StateDictType.FULL_STATE_DICT
        self.state_dict_config = _whole(FullStateDictConfig, rank0_only=True)
        self.optim_state_dict_config = _whole(FullOptimStateDictConfig, rank0_only=True)

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> Any:
        """Build the optimiser's wrapper; it clips by the norm of the whole gradient, and scales alike on all ranks."""
        built = super().build_optim_wrapper(optim_wrapper, model)
        if isinstance(built, OptimWrapper):
            if built.clip_func is torch.nn.utils.clip_grad_norm_:
                built._clip_grad = functools.partial(_clip_whole_gradient, built, model)
            scaler = getattr(built, "loss_scaler", None)
            if scaler is not None and scaler.is_enabled():
                built.loss_scaler = ShardedGradScaler(device=get_device(), init_scale=scaler.get_scale())
        return built

    def optim_state_dict(self) -> dict:
        """Return the whole state of the optimiser on the first rank, by parameters' names."""
        state = FullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        own = self.optim_wrapper.state_dict()
        return state | {key: value for key, value in own.items() if key not in ("state", "param_groups")}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load what :meth:`optim_state_dict` returned."""
        sharded = FullyShardedDataParallel.optim_state_dict_to_load(
            self.model, self.optim_wrapper.optimizer, {key: state_dict[key] for key in ("state", "param_groups")}
        )
        self.optim_wrapper.load_state_dict(state_dict | sharded)


def _clip_whole_gradient(optim_wrapper: OptimWrapper, model: FullyShardedDataParallel) -> None:
    norm = model.clip_grad_norm_(**optim_wrapper.clip_grad_kwargs)
    optim_wrapper.message_hub.update_scalar(f"train/{optim_wrapper.grad_name}", float(norm))


def _whole(config: type, rank0_only: bool) -> Any:
    # On the CPU, torch frees what it "offloads" to where it is already.
    return config(offload_to_cpu=torch.device(get_device()).type != "cpu", rank0_only=rank0_only)


def full_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the whole tensors of a model on every rank, also where they are sharded; all ranks must call it."""
    if not isinstance(model, FullyShardedDataParallel):
        return (model.module if is_model_wrapper(model) else model).state_dict()
    whole = _whole(FullStateDictConfig, rank0_only=False)
    with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT, whole):
        return model.state_dict()


def forget_gathered(model: FullyShardedDataParallel) -> None:
    """Let the next pass gather the parameters anew, after shards were changed other than by the optimiser.

    A forward pass without gradient, as validation has it, keeps what it gathered.
    """
    for unit in FullyShardedDataParallel.fsdp_modules(model):
        if unit._handle is not None:
            unit._handle.reshard(free_unsharded_flat_param=True)
