"""From a config to a runner: what the commands ``train`` and ``test`` have in common."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, init_dist, is_main_process
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import FlexibleRunner, Runner

from ffplug.config import apply_device_fragment, load_config, parse_cfg_options, validate_config
from ffplug.engine.checkpoint_hook import find_resumable
from ffplug.errors import CheckpointError, ConfigError
from ffplug.registry import PREPARERS

TRAINING_KEYS = ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr", "load_from")
VALIDATION_KEYS = ("val_dataloader", "val_cfg", "val_evaluator")
TEST_KEYS = ("test_dataloader", "test_cfg", "test_evaluator")


def load_run_config(
    config: str | os.PathLike,
    cfg_options: Sequence[str] = (),
    work_dir: str | os.PathLike | None = None,
    seed: int | None = None,
    launcher: str | None = None,
) -> Config:
    """Load a config for a run on this machine, check it, and put its data in place.

    Over several processes, this starts their communication: data are prepared by the first alone.

    Args:
        config: File, or name of a recipe.
        cfg_options: ``key=value`` strings; they have the last word, also over the fragment for machines without a GPU.
        work_dir: Folder for results; ``work_dirs/<config>`` by default.
        seed: Seed of everything, or None for the config's.
        launcher: ``none``, ``pytorch``, ``slurm``, ``mpi``, or None to see whether torchrun started this process.

    Raises:
        ConfigError: The config is wrong.
    """
    options = parse_cfg_options(cfg_options)
    loaded = load_config(config, options)
    apply_device_fragment(loaded)
    loaded.merge_from_dict(options)
    loaded.work_dir = str(work_dir or loaded.get("work_dir") or Path("work_dirs") / Path(config).stem)
    if seed is not None:
        loaded.randomness = {**loaded.get("randomness", {}), "seed": seed}
    loaded.launcher = launcher or ("pytorch" if {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= os.environ.keys() else "none")
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if loaded.get(name) and not loaded[name].get("num_workers"):
            loaded[name].pop("persistent_workers", None)  # torch refuses it where there are none
    validate_config(loaded)
    if loaded.launcher != "none" and not torch.distributed.is_initialized():
        _warn_of_shared_store()
        init_dist(loaded.launcher, **loaded.get("env_cfg", {}).get("dist_cfg", {"backend": "nccl"}))
    prepare_data(loaded)
    return loaded


def prepare_data(config: Config) -> None:
    """Run the config's preparers (key ``prepare_data``), which may write data and change the config to point at them.

    The first process runs them before the others, which then find the data there.
    """
    steps = config.get("prepare_data") or []
    steps = [steps] if isinstance(steps, Mapping) else steps

    def run() -> None:
        for step in steps:
            PREPARERS.build(dict(step))(config)

    if is_main_process():
        run()
    barrier()
    if not is_main_process():
        run()


def set_resume(config: Config, resume: str | None) -> None:
    """Point the config at the checkpoint to resume from.

    Where torchrun starts processes again after one died, that is the newest of the work folder, whatever is asked for.

    Args:
        config: The config; its ``resume=True`` counts as ``'auto'``.
        resume: ``'auto'`` for the newest whole checkpoint of the work folder, if there is one; a path; or None.

    Raises:
        CheckpointError: The path does not exist, or the checkpoint that the config starts from, or not on this machine.
    """
    if resume is None and config.get("resume"):
        resume = config.get("load_from") or "auto"
    asked = resume
    if restarted():
        resume = "auto"
    if resume == "auto":
        newest = _newest_for_all(config.work_dir)
        print_log(
            f"Resuming from {newest}" if newest else f"Nothing to resume in {config.work_dir}: starting", "current"
        )
        resume = newest or (asked if asked != "auto" else None)
    config.resume = resume is not None
    if resume is not None:
        config.load_from = resume
    start = config.get("load_from")
    if start and "://" not in start and not Path(start).expanduser().is_file():
        raise CheckpointError(f"checkpoint {start} does not exist")


def restarted() -> bool:
    """Tell whether torchrun started this process anew, after another one died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def _warn_of_shared_store() -> None:
    """Tell who calls torchrun without our scripts how to be safe from a hang after a restart.

    torch keeps one store for all starts, in which new processes may find the addresses of dead ones.
    """
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0))
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and os.environ["RANK"] == "0":
        print_log(
            "torchrun --max-restarts may hang after a restart: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 before it",
            "current",
            logging.WARNING,
        )


def _newest_for_all(work_dir: str) -> str | None:
    """Return the checkpoint that the first process finds, which all then resume from.

    Raises:
        CheckpointError: This machine does not have it.
    """
    newest = find_resumable(work_dir) if is_main_process() else None
    shared = [str(newest) if newest else None]
    broadcast_object_list(shared)
    if shared[0] is not None and not Path(shared[0]).is_file():
        raise CheckpointError(
            f"checkpoint {shared[0]} of the first machine is not on {socket.gethostname()}: "
            "to resume, --work-dir must be a folder that all machines share"
        )
    return shared[0]


def keep_test_only(config: Config) -> None:
    """Leave in a config what testing needs; without a test set, the validation set is tested.

    Raises:
        ConfigError: It has neither.
    """
    if config.get("test_dataloader") is None:
        for test, validation in zip(TEST_KEYS, VALIDATION_KEYS, strict=True):
            config[test] = config.get(validation)
        config.test_cfg = {}  # a test loop, whatever loop validates
    if config.get("test_dataloader") is None:
        raise ConfigError(f"{config.filename}: has no test_dataloader and no val_dataloader to test on")
    for key in (*TRAINING_KEYS, *VALIDATION_KEYS):
        config[key] = None
    config.resume = False
    config.pop("runner_type", None)  # each process tests with the whole model, however it was trained
    config.pop("strategy", None)


@contextmanager
def open_runner(config: Config) -> Iterator[Runner | FlexibleRunner]:
    """Build a runner of the config's ``runner_type``; however the block ends, give terminal and communication back."""
    runner: Any = None
    try:
        runner = RUNNERS.build(config)
        yield runner
    finally:
        for hook in runner.hooks if runner else ():
            if hasattr(hook, "close"):
                hook.close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
