"""How a model is spread over the ranks: MMEngine's strategies, with what recipes need and they lack."""

from __future__ import annotations

import functools
import importlib.util
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine import _strategy
from mmengine.device import get_device
from mmengine.dist import is_distributed, is_main_process
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import save_checkpoint, weights_to_cpu
from torch import nn
from torch.distributed.fsdp import (
    FullOptimStateDictConfig,
    FullStateDictConfig,
    FullyShardedDataParallel,
    StateDictType,
)
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler

from ffplug.compat import trusts_checkpoints
from ffplug.errors import CheckpointError, ConfigError, PluginError
from ffplug.registry import STRATEGIES

FSDP_PREFIX = "_fsdp_wrapped_module."
"""What torch puts into the names of sharded parameters."""


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
        """Load what :meth:`optim_state_dict` returned, or the state of an optimiser of whole parameters, by numbers."""
        optimizer = self.optim_wrapper.optimizer
        names = {id(value): key.replace(FSDP_PREFIX, "") for key, value in self.model.named_parameters()}
        named, groups = {}, []
        for saved, own in zip(state_dict["param_groups"], optimizer.param_groups, strict=True):
            groups.append({**saved, "params": [names[id(parameter)] for parameter in own["params"]]})
            named.update(zip(saved["params"], groups[-1]["params"], strict=True))
        state = {named[key]: value for key, value in state_dict["state"].items()}
        sharded = FullyShardedDataParallel.optim_state_dict_to_load(
            self.model, optimizer, {"state": state, "param_groups": groups}
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


@STRATEGIES.register_module()
class DeepSpeedStrategy(_strategy.DeepSpeedStrategy):
    """Shard gradients and the optimiser's state over the ranks by DeepSpeed's ZeRO, stage 1 or 2.

    MMEngine's strategy fails with DeepSpeed versions without 1-bit optimisers, asks for an optimiser wrapper and a
    batch size of its own, and saves folders that hooks do not see. Here a recipe stays as it is: its ``optim_wrapper``
    gives optimiser, clipping by the norm, accumulation and type. A checkpoint has two parts: ``iter_N.pth`` as any
    training's, from which weights are published, and the folder ``iter_N.deepspeed`` for resuming, which DeepSpeed
    reads by pickle and which therefore asks for ``--trust-checkpoint``.

    Args:
        zero_optimization: DeepSpeed's settings of that name; ``dict(stage=1)`` by default.
        **kwargs: Those of ``mmengine._strategy.DeepSpeedStrategy``.

    Raises:
        PluginError: DeepSpeed is not installed.
        ConfigError: Stage 3, for which :class:`FSDPStrategy` is there, or one process alone.
    """

    def __init__(self, *, zero_optimization: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if importlib.util.find_spec("deepspeed") is None:
            raise PluginError("ffplug.DeepSpeedStrategy needs DeepSpeed: pip install deepspeed")
        zero = dict(zero_optimization or {"stage": 1})
        if zero.get("stage", 0) > 2:
            raise ConfigError(
                "strategy.zero_optimization.stage: 1 or 2; to shard parameters too use ffplug.FSDPStrategy"
            )
        super().__init__(zero_optimization=zero, **kwargs)
        if not is_distributed():
            raise ConfigError(f"{type(self).__name__} works over several processes: start them by torchrun")

    def prepare(self, model: nn.Module | dict, *, dispatch_kwargs: dict | None = None, **kwargs: Any) -> Any:
        """Build model, optimiser and engine."""
        batch = (dispatch_kwargs or {}).get("train_micro_batch_size_per_gpu", 1)
        self.config.setdefault("train_micro_batch_size_per_gpu", batch)
        return super().prepare(model, dispatch_kwargs=dispatch_kwargs or {}, **kwargs)

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> Any:
        """Build DeepSpeed's wrapper of a recipe's optimiser, and give DeepSpeed the recipe's other settings."""
        settings = dict(optim_wrapper)
        if clip := settings.pop("clip_grad", None):
            if set(clip) - {"type"} != {"max_norm"}:
                raise ConfigError("optim_wrapper.clip_grad: DeepSpeed clips by max_norm alone")
            self.config["gradient_clipping"] = clip["max_norm"]
        self.config["gradient_accumulation_steps"] = settings.pop("accumulative_counts", 1)
        dtype = {"fp16": "fp16", "float16": "fp16", "bf16": "bf16", "bfloat16": "bf16"}.get(settings.pop("dtype", None))
        if dtype is not None:
            self.config[dtype] = {"enabled": True}
        settings.pop("init_scale", None)
        settings["type"] = "DeepSpeedOptimWrapper"
        return super().build_optim_wrapper(settings, model)

    def save_checkpoint(
        self,
        filename: str,
        *,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        extra_ckpt: dict | None = None,
        callback: Callable | None = None,
    ) -> None:
        """Save DeepSpeed's folder, and then the file beside it."""
        path = Path(filename)
        if save_optimizer:
            self.model.save_checkpoint(str(path.parent), tag=path.with_suffix(".deepspeed").name, save_latest=False)
        if not is_main_process():
            return
        checkpoint = {"state_dict": weights_to_cpu(self.model.module_state_dict()), **(extra_ckpt or {})}
        checkpoint["meta"] = {**checkpoint.get("meta", {}), "seed": self.seed}
        if save_optimizer:
            checkpoint["optimizer"] = {}
        if save_param_scheduler:
            checkpoint["param_schedulers"] = self.scheduler_state_dict()
        if callback is not None:
            callback(checkpoint)
        save_checkpoint(checkpoint, filename)
        for folder in path.parent.glob("iter_*.deepspeed"):
            if not folder.with_suffix(".pth").is_file():
                shutil.rmtree(folder)

    def load_checkpoint(self, filename: str, *, callback: Callable | None = None, **kwargs: Any) -> dict:
        """Start from the weights of a file."""
        checkpoint = CheckpointLoader.load_checkpoint(filename, map_location="cpu")
        if callback is not None:
            callback(checkpoint)
        self.model.module.load_state_dict(checkpoint.pop("state_dict"))
        self.model.optimizer.refresh_fp32_params()
        return checkpoint

    def resume(self, filename: str, *, callback: Callable | None = None, **kwargs: Any) -> dict:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: The folder beside the file is missing, or not trusted.
        """
        path = Path(filename)
        folder = path.with_suffix(".deepspeed")
        if not folder.is_dir():
            raise CheckpointError(f"{folder} does not exist: {path} is no checkpoint of a training with DeepSpeed")
        if not trusts_checkpoints():
            raise CheckpointError(f"DeepSpeed reads {folder} by pickle, which runs code in it: add --trust-checkpoint")
        checkpoint = self.load_checkpoint(filename, callback=callback)
        self.model.load_checkpoint(str(path.parent), tag=folder.name)
        if hasattr(self, "param_schedulers"):
            self.load_scheduler_state_dict(checkpoint["param_schedulers"])
        self._randomness.update(seed=checkpoint["meta"]["seed"])
        self._set_randomness(**self._randomness)
        return checkpoint
