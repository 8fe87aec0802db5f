"""What MMEngine and torch need mended, in one place: each item with its reason and a test.

Tests are in tests/test_compat.py, and where several processes are needed in test_distributed.py and test_strategies.py.
It works on ``onedl-mmengine`` and on upstream ``mmengine`` 0.10.7, and is applied once, when ``ffplug.registry`` is
first imported. Four mends live where they are configured instead: mixed precision on the CPU in
:class:`ffplug.engine.optim.AmpOptimWrapper`, exact resume in :class:`ffplug.engine.loops.IterBasedTrainLoop`,
sharded training in :mod:`ffplug.engine.strategies`, and strict config keys in :mod:`ffplug.config`.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import pickle
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine import hub, utils
from mmengine._strategy import deepspeed as deepspeed_strategy
from mmengine.dist import gather_object
from mmengine.dist import utils as dist_utils
from mmengine.evaluator import metric as evaluator_metric
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import MMDistributedDataParallel
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.registry import MODELS, OPTIMIZERS
from mmengine.runner import CheckpointLoader, FlexibleRunner
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner import runner as mmengine_runner
from mmengine.utils import package_utils
from safetensors import SafetensorError, safe_open
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ffplug.errors import CheckpointError, ConfigError, PluginError, did_you_mean
from ffplug.files import atomic_path

TRUST_VARIABLE = "FFPLUG_TRUST_CHECKPOINT"

UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError)
"""What torch.load raises for files that are cut, damaged, unsafe or no checkpoints at all."""

# ---------------------------------------------------------------------------------------------------------------
# Checkpoints. Reason: upstream cannot resume from its own checkpoints under torch >= 2.6, for they hold
# HistoryBuffers, and the fork falls back to full unpickling, which runs whatever code the file holds.


PICKLED_METHODS = {
    HistoryBuffer: {"min", "max", "mean", "current"},
    OneCycleParamScheduler: {"_annealing_cos", "_annealing_linear"},
}
"""Methods that MMEngine's own checkpoints refer to, as parts of the state of their class."""


def _method(owner: Any, name: str) -> Any:
    """Stand in for ``getattr``, which pickles call for a method: for those above, and for nothing else."""
    if isinstance(owner, type) and name in PICKLED_METHODS.get(owner, ()):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f"GLOBAL builtins.getattr of {name!r} is refused")


def _named(function: Callable, module: str, name: str) -> Callable:
    """Give a stand-in the name under which a pickle asks for it; torch looks allowed globals up by name."""

    def stand_in(*args: Any) -> Any:
        return function(*args)

    stand_in.__module__, stand_in.__name__, stand_in.__qualname__ = module, name, name
    return stand_in


def _safe_globals() -> list[Any]:
    """List what honest checkpoints hold besides tensors and plain containers: HistoryBuffers and NumPy values."""
    multiarray = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    arrays = [
        _named(getattr(multiarray, name), f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")  # NumPy 1 and 2 pickle under different names
        for name in ("_reconstruct", "scalar")
    ]
    dtypes = [item for item in vars(np.dtypes).values() if isinstance(item, type)]
    return [*PICKLED_METHODS, _named(_method, "builtins", "getattr"), *arrays, np.ndarray, np.dtype, *dtypes]


def trusts_checkpoints() -> bool:
    """Tell whether the user said, by ``FFPLUG_TRUST_CHECKPOINT=1``, that checkpoints may run code of theirs."""
    return os.environ.get(TRUST_VARIABLE, "").lower() in {"1", "true", "yes", "on"}


def safe_torch_load(file: str | Path | BinaryIO, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Load what :func:`torch.save` wrote without running code of it, unless the user trusts checkpoints.

    Args:
        file: A path or an open binary file.
        map_location: As in :func:`torch.load`.
        weights_only: Ignored; it is there because MMEngine's loader takes it.

    Raises:
        CheckpointError: The file holds a global outside the allow-list, is truncated or is no checkpoint.
    """
    name = str(file) if isinstance(file, (str, Path)) else "the checkpoint"
    try:
        return torch.load(file, map_location=map_location, weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{name} does not exist") from error
    except UNREADABLE as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise CheckpointError(f"{name} is truncated, damaged or not a checkpoint ({_reason(error)})") from error
        if not trusts_checkpoints():
            raise CheckpointError(
                f"{name} is refused: it holds {refused[1]}, which is code and not weights. If you trust its origin, "
                f"pass --trust-checkpoint or set {TRUST_VARIABLE}=1"
            ) from error
    print_log(f"{name} holds {refused[1]} and is trusted, as {TRUST_VARIABLE} asks", "current", logging.WARNING)
    if hasattr(file, "seek"):
        file.seek(0)
    return torch.load(file, map_location=map_location, weights_only=False)


def _reason(error: Exception) -> str:
    """Return the one line of torch's message that says what is wrong."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return (text.strip() or type(error).__name__).splitlines()[0][:120]


def load_from_local(filename: str | Path, map_location: Any = None) -> Any:
    """Load a checkpoint of :func:`torch.save` or a ``.safetensors`` file from the disk, safely.

    Args:
        filename: Path; ``~`` is expanded.
        map_location: As in :func:`torch.load`.

    Returns:
        What the file holds; for safetensors ``dict(state_dict=..., meta=...)`` with the file's metadata.

    Raises:
        CheckpointError: The file is missing, unsafe, truncated or no checkpoint.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} {'is a folder' if path.is_dir() else 'does not exist'}")
    if path.suffix != ".safetensors":
        return safe_torch_load(path, map_location)
    device = "cpu" if map_location is None or callable(map_location) else str(map_location)
    try:
        with safe_open(path, framework="pt", device=device) as file:
            return {"state_dict": {key: file.get_tensor(key) for key in file.keys()}, "meta": file.metadata() or {}}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or not a safetensors file ({_reason(error)})") from error


def load_from_remote(filename: str, map_location: Any = None) -> Any:
    """Refuse a remote checkpoint: nothing is downloaded that the user did not fetch.

    Raises:
        CheckpointError: Always.
    """
    raise CheckpointError(f"checkpoint {filename} is not on this machine: download it yourself and give its path")


REMOTE_PREFIXES = (
    "http://",
    "https://",
    "pavi://",
    "modelzoo://",
    "torchvision://",
    "open-mmlab://",
    "openmmlab://",
    "mmcls://",
)


def _mend_checkpoints() -> None:
    torch.serialization.add_safe_globals(_safe_globals())
    CheckpointLoader.register_scheme("", load_from_local, force=True)
    CheckpointLoader.register_scheme(REMOTE_PREFIXES, load_from_remote, force=True)
    mmengine_checkpoint._safe_torch_load = safe_torch_load  # the fork's loaders of object storage call it


# ---------------------------------------------------------------------------------------------------------------
# Files. Reason: MMEngine writes in place, so a process killed in a write leaves half a checkpoint under its final
# name, over the good one.


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, written whole or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file atomically."""
        with atomic_path(filepath) as temporary:
            temporary.write_bytes(obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        """Write text to a file atomically."""
        with atomic_path(filepath) as temporary:
            temporary.write_text(obj, encoding=encoding)


# ---------------------------------------------------------------------------------------------------------------
# Packages. Reason: ``mmengine.hub`` installs what it lacks, with the first pip on PATH.


def require_package(package: str) -> None:
    """Do nothing for an installed package.

    Raises:
        PluginError: It is not installed; MMEngine would have run pip.
    """
    if not package_utils.is_installed(package):
        raise PluginError(f"{package} is not installed: run pip install {package} if you want it")


# ---------------------------------------------------------------------------------------------------------------
# Launchers. Reasons: MMEngine asks for a GPU whatever there is; under mpirun it never sets LOCAL_RANK, which its own
# wrappers read; under Slurm the shell's "scontrol: not found" becomes the first machine's address; and a variable that
# is not there is a bare KeyError.

LAUNCHER_VARIABLES = {
    "pytorch": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "slurm": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
"""Where each launcher tells a process its rank, the number of processes, and its rank on its own machine."""

STARTED_BY = {"pytorch": "torchrun (tools/dist_train.sh)", "slurm": "srun", "mpi": "mpirun of Open MPI"}


def read_launcher(launcher: str) -> None:
    """Set torch's own variables (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``, ``MASTER_PORT``) from those
    of Slurm or Open MPI.

    Args:
        launcher: ``pytorch``, ``slurm`` or ``mpi``.

    Raises:
        ConfigError: The launcher did not start this process, or does not tell the first machine's address.
    """
    absent = [name for name in LAUNCHER_VARIABLES[launcher] if name not in os.environ]
    if absent:
        raise ConfigError(
            f"--launcher {launcher}: {', '.join(absent)} is not set; start the processes by {STARTED_BY[launcher]}"
        )
    if launcher == "pytorch":
        return
    rank, size, local = (os.environ[name] for name in LAUNCHER_VARIABLES[launcher])
    devices = torch.cuda.device_count()
    # A cluster may show each process its own GPU alone, which then is number 0.
    os.environ.update(RANK=rank, WORLD_SIZE=size, LOCAL_RANK=str(int(local) % devices if devices else local))
    job = os.environ.get("SLURM_JOB_ID", "0")
    os.environ.setdefault("MASTER_PORT", os.environ.get("PORT") or str(20000 + int(job) % 10000))
    if "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = _first_machine(launcher)


def _first_machine(launcher: str) -> str:
    if launcher == "mpi":
        alone = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == os.environ["OMPI_COMM_WORLD_SIZE"]
    else:
        alone = os.environ.get("SLURM_NNODES", os.environ.get("SLURM_JOB_NUM_NODES")) == "1"
    if alone:
        return "127.0.0.1"
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST") or ""
    if launcher == "slurm" and nodes:
        try:
            shown = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
            return shown.stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            pass  # it says below what to do
    raise ConfigError(f"--launcher {launcher}: set MASTER_ADDR to the address of the machine that has rank 0")


def _init_by(launcher: str) -> Callable:
    def init(backend: str, init_backend: str = "torch", port: int | None = None, **kwargs: Any) -> None:
        if port is not None:
            os.environ["MASTER_PORT"] = str(port)
        read_launcher(launcher)
        dist_utils._init_dist_pytorch(backend, init_backend=init_backend, **kwargs)

    return init


def _gpu_launch(launch: Callable) -> Callable:
    @functools.wraps(launch)
    def init(backend: str, init_backend: str = "torch", **kwargs: Any) -> None:
        read_launcher("pytorch")
        accelerated = torch.cuda.is_available() or any(
            probe()
            for probe in (dist_utils.is_mlu_available, dist_utils.is_npu_available, dist_utils.is_musa_available)
        )
        if accelerated:
            launch(backend, init_backend=init_backend, **kwargs)
        else:
            torch.distributed.init_process_group(backend="gloo", **kwargs)

    return init


# ---------------------------------------------------------------------------------------------------------------
# DistributedDataParallel. Reasons: the runner gives it a CUDA device, whatever there is; and of parameters without a
# gradient it tells the numbers alone, an iteration too late: a rank that lacks the gradients of another has met it in
# another collective by then, and hangs or reads its data as its own.


def _ddp_on_any_device(init: Callable) -> Callable:
    @functools.wraps(init)
    def wrapper(self: MMDistributedDataParallel, module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        if all(parameter.device.type == "cpu" for parameter in module.parameters()):
            kwargs["device_ids"] = None
        init(self, module, *args, **kwargs)

    return wrapper


def _ddp_that_names_parameters(train_step: Callable) -> Callable:
    @functools.wraps(train_step)
    def wrapper(self: MMDistributedDataParallel, data: Any, optim_wrapper: Any) -> dict[str, torch.Tensor]:
        try:
            losses = train_step(self, data, optim_wrapper)
            self.reducer._rebuild_buckets()  # the next forward pass begins with it, and it raises what is wrong
        except RuntimeError as error:
            named = _parameters_without_gradient(self, str(error))
            if named is None:
                raise
            listed = ", ".join(named[:10]) + (", ..." if len(named) > 10 else "")
            raise ConfigError(
                f"{len(named)} parameters got no gradient: {listed}. Let a loss depend on them, freeze them "
                "(requires_grad=False), or, where they are needed only now and then, set "
                "find_unused_parameters=True in the config"
            ) from error
        return losses

    return wrapper


def _parameters_without_gradient(model: MMDistributedDataParallel, message: str) -> list[str] | None:
    """Return the names of the parameters whose numbers torch's message lists, or None for another message."""
    listed = re.search(r"did not receive grad for rank \d+: ([\d ]+)", message)
    if listed is None:
        return None
    names = [name for name, parameter in model.module.named_parameters() if parameter.requires_grad]
    return [names[int(index)] for index in listed[1].split()]


# ---------------------------------------------------------------------------------------------------------------
# Metrics. Reason: results travel through files in the current folder, which machines need not share and in which they
# stay; and where one rank has more results than another, the surplus is dropped.


def collect_results(results: list, size: int, device: str = "cpu", tmpdir: str | None = None) -> list | None:
    """Bring all ranks' results to the first rank, in the order in which a sampler dealt them out.

    Args:
        results: This rank's.
        size: How many to return; what a sampler repeated to fill up lies beyond.
        device: Ignored; objects travel.
        tmpdir: Ignored; no file is needed.

    Returns:
        The results on the first rank, None elsewhere.
    """
    parts = gather_object(results)
    if parts is None:
        return None
    absent = object()
    dealt = [item for items in zip_longest(*parts, fillvalue=absent) for item in items if item is not absent]
    return dealt[:size]


# ---------------------------------------------------------------------------------------------------------------
# FlexibleRunner. Reason: its own default, env_cfg=None, is unpacked with ** and fails.


def _env_default(init: Callable) -> Callable:
    @functools.wraps(init)
    def wrapper(self: FlexibleRunner, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("env_cfg") is None:
            kwargs["env_cfg"] = {}
        init(self, *args, **kwargs)

    return wrapper


# ---------------------------------------------------------------------------------------------------------------
# Activation checkpointing (config key ``activation_checkpointing``). Reasons: MMEngine's is torch's old kind, in which
# a part whose input needs no gradient, as an encoder's frames, gets none itself, without a word; batch norm counts each
# batch twice; and FlexibleRunner passes over the key.


def turn_on_activation_checkpointing(model: torch.nn.Module, modules: str | Iterable[str]) -> None:
    """Let parts of a model keep no activation for the gradient, but run again there.

    Args:
        model: The model.
        modules: Names of its submodules, such as ``'encoder'``.

    Raises:
        ConfigError: It has no submodule of that name.
    """
    parts = dict(model.named_modules())
    for name in [modules] if isinstance(modules, str) else modules:
        if name not in parts:
            near = did_you_mean(name, parts) or f"; its parts are {', '.join(dict(model.named_children()))}"
            raise ConfigError(f"activation_checkpointing: the model has no part {name!r}{near}")
        parts[name].forward = _forward_twice(parts[name])


def _forward_twice(module: torch.nn.Module) -> Callable:
    forward = module.forward

    @functools.wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(
            forward,
            *args,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), _statistics_at_rest(module)),
            **kwargs,
        )

    return wrapper


@contextmanager
def _statistics_at_rest(module: torch.nn.Module) -> Iterator[None]:
    """Keep batch norms from counting a batch that they have met."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


def _checkpointing_by_any_runner(train: Callable) -> Callable:
    @functools.wraps(train)
    def wrapper(self: FlexibleRunner) -> torch.nn.Module:
        modules = self.cfg.get("activation_checkpointing")
        if modules and isinstance(self.model, dict):
            self.model = MODELS.build(self.model)
            turn_on_activation_checkpointing(self.model, modules)
        return train(self)

    return wrapper


# ---------------------------------------------------------------------------------------------------------------
# DeepSpeed. Reason: MMEngine registers optimisers that newer versions no longer have, and fails.


def register_deepspeed_optimizers() -> list[str]:
    """Register those of DeepSpeed's optimisers that its version has, and return their names."""
    found = []
    for module, name in (
        ("deepspeed.ops.adam", "DeepSpeedCPUAdam"),
        ("deepspeed.ops.adam", "FusedAdam"),
        ("deepspeed.ops.lamb", "FusedLamb"),
        ("deepspeed.runtime.fp16.onebit", "OnebitAdam"),
        ("deepspeed.runtime.fp16.onebit", "OnebitLamb"),
        ("deepspeed.runtime.fp16.onebit", "ZeroOneAdam"),
    ):
        try:
            OPTIMIZERS.register_module(module=getattr(importlib.import_module(module), name), force=True)
        except (ImportError, AttributeError):
            continue
        found.append(name)
    return found


def _mend() -> None:
    _mend_checkpoints()
    register_backend("local", AtomicLocalBackend, force=True, prefixes="")
    for module in (package_utils, utils, hub.hub):
        module.install_package = require_package
    dist_utils._init_dist_pytorch = _gpu_launch(dist_utils._init_dist_pytorch)
    dist_utils._init_dist_slurm = _init_by("slurm")
    dist_utils._init_dist_mpi = _init_by("mpi")
    MMDistributedDataParallel.train_step = _ddp_that_names_parameters(MMDistributedDataParallel.train_step)
    evaluator_metric.collect_results = collect_results
    MMDistributedDataParallel.__init__ = _ddp_on_any_device(MMDistributedDataParallel.__init__)
    FlexibleRunner.__init__ = _env_default(FlexibleRunner.__init__)
    FlexibleRunner.train = _checkpointing_by_any_runner(FlexibleRunner.train)
    deepspeed_strategy.register_deepspeed_optimizers = register_deepspeed_optimizers
    mmengine_runner.turn_on_activation_checkpointing = turn_on_activation_checkpointing


_mend()
