"""From a config to a runner: what the commands ``train`` and ``test`` have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import barrier, init_dist, is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner

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

    Args:
        config: The config; its ``resume=True`` counts as ``'auto'``.
        resume: ``'auto'`` for the newest whole checkpoint of the work folder, if there is one; a path; or None.

    Raises:
        CheckpointError: The path does not exist, or the checkpoint that the config starts from.
    """
    if resume is None and config.get("resume"):
        resume = config.get("load_from") or "auto"
    if resume == "auto":
        newest = find_resumable(config.work_dir)
        resume = str(newest) if newest else None
        print_log(
            f"Resuming from {newest}" if newest else f"Nothing to resume in {config.work_dir}: starting", "current"
        )
    config.resume = resume is not None
    if resume is not None:
        config.load_from = resume
    start = config.get("load_from")
    if start and "://" not in start and not Path(start).expanduser().is_file():
        raise CheckpointError(f"checkpoint {start} does not exist")


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


@contextmanager
def open_runner(config: Config) -> Iterator[Runner]:
    """Build a runner; when the block ends, however it ends, give terminal and processes' communication back."""
    runner: Any = None
    try:
        runner = Runner.from_cfg(config)
        yield runner
    finally:
        for hook in runner.hooks if runner else ():
            if hasattr(hook, "close"):
                hook.close()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
