"""Checkpoints that are plain data, never torn, and resumable; and the released weights."""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import is_model_wrapper
from safetensors.torch import save_file

from ffplug.compat import load_from_local
from ffplug.engine.strategies import full_state_dict
from ffplug.errors import CheckpointError, ConfigError
from ffplug.files import atomic_path
from ffplug.registry import HOOKS
from ffplug.version import __version__

HISTORY = "history_buffer"
WEIGHTS_FILE = "weights.safetensors"


@HOOKS.register_module()
class CheckpointHook(Hook):
    """Save what a resume needs every ``interval`` iterations, and the weights at the end.

    The files differ from those of MMEngine's hook in four ways. They hold tensors and plain Python data alone, so
    ``torch.load(weights_only=True)`` reads them with no allow-list. A new one is whole on the disk before an older
    one is removed, so a kill at any moment leaves one to resume from. Frozen parts that the model names in
    ``checkpoint_exclude_prefixes()`` are left out. And loading says what does not fit instead of going on without it.

    After training ``weights.safetensors`` holds the last weights, the averaged ones where an EMA hook keeps them, and
    in its metadata the model's config, the version of FFPlug and the iteration.

    Args:
        interval: Iterations between two checkpoints, > 0.
        max_keep_ckpts: How many ``iter_*.pth`` to keep, the newest; -1 keeps all.
        save_best: Name of a validation metric whose best model is kept as ``best.pth``, or None.
        rule: ``'less'`` or ``'greater'``: which value of it is better.
        save_last: Whether to save after the last iteration too.

    Raises:
        ConfigError: An argument is out of range, or ``interval`` falls between two updates of accumulated gradients.
    """

    priority = "VERY_LOW"

    def __init__(
        self,
        interval: int = 1000,
        max_keep_ckpts: int = 3,
        save_best: str | None = None,
        rule: str = "less",
        save_last: bool = True,
    ) -> None:
        if interval < 1 or max_keep_ckpts == 0:
            raise ConfigError("checkpoint hook: interval must be at least 1 and max_keep_ckpts not 0")
        if rule not in ("less", "greater"):
            raise ConfigError(f"checkpoint hook: rule must be 'less' or 'greater', not {rule!r}")
        self.interval = interval
        self.max_keep_ckpts = max_keep_ckpts
        self.save_best = save_best
        self.rule = rule
        self.save_last = save_last

    # ---- saving

    def before_train(self, runner: Any) -> None:
        """Check the interval, and remove what killed writers left behind."""
        counts = getattr(runner.optim_wrapper, "_accumulative_counts", 1)
        if self.interval % counts:
            raise ConfigError(
                f"checkpoint hook: interval={self.interval} must be a multiple of accumulative_counts={counts}, "
                "for half-accumulated gradients are not saved"
            )
        if is_main_process():
            for leftover in Path(runner.work_dir).glob(".*.tmp"):
                leftover.unlink()
            if runner.iter == 0:
                self._set_aside(runner)

    @staticmethod
    def _set_aside(runner: Any) -> None:
        """Move what an earlier run left in the folder out of the way of a new one, losing nothing."""
        work_dir = Path(runner.work_dir)
        results = [work_dir / name for name in ("last_checkpoint", "best.pth", "best.json", WEIGHTS_FILE)]
        folders = work_dir.glob("iter_*.deepspeed")
        earlier = [path for path in (*list_checkpoints(work_dir), *folders, *results) if path.exists()]
        if earlier:
            folder = work_dir / f"before_{runner.timestamp}"
            folder.mkdir(exist_ok=True)
            for path in earlier:
                path.rename(folder / path.name)
            runner.logger.info(f"Checkpoints of an earlier run moved to {folder} (--resume would have continued it)")

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Save at every interval, and after the last iteration."""
        done = runner.iter + 1
        if done % self.interval == 0 or (self.save_last and done == runner.max_iters):
            runner.logger.info(f"Saving checkpoint at {done} iterations")
            self._save(runner, f"iter_{done}.pth", done)
            if is_main_process():
                with atomic_path(Path(runner.work_dir) / "last_checkpoint") as temporary:
                    temporary.write_text(str(Path(runner.work_dir) / f"iter_{done}.pth"))
                self._remove_old(Path(runner.work_dir), done)

    @staticmethod
    def _save(runner: Any, name: str, iteration: int, resumable: bool = True) -> None:
        runner.save_checkpoint(
            runner.work_dir,
            name,
            save_optimizer=resumable,
            save_param_scheduler=resumable and runner.param_schedulers is not None,
            meta={"epoch": runner.epoch, "iter": iteration},
            by_epoch=False,
        )

    def _remove_old(self, work_dir: Path, done: int) -> None:
        if self.max_keep_ckpts > 0:
            past = [path for path in list_checkpoints(work_dir) if int(path.stem[len("iter_") :]) <= done]
            for path in past[self.max_keep_ckpts :]:
                path.unlink()

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Keep the model as ``best.pth`` when its metric is the best so far."""
        if self.save_best is None or not metrics or runner.train_loop is None:
            return
        if self.save_best not in metrics:
            raise ConfigError(f"checkpoint hook: save_best={self.save_best!r} is none of {', '.join(metrics)}")
        record = Path(runner.work_dir) / "best.json"
        found = [json.loads(record.read_text()) if is_main_process() and record.is_file() else {}]
        broadcast_object_list(found)  # all decide alike: a sharded model is saved by all together
        best = found[0]
        value = float(metrics[self.save_best])
        # A record from beyond this iteration was made before a kill, and will be made again.
        known = best.get("metric") == self.save_best and best["iter"] < runner.iter
        if known and ((value >= best["value"]) if self.rule == "less" else (value <= best["value"])):
            return
        self._save(runner, "best.pth", runner.iter, resumable=False)
        if is_main_process():
            with atomic_path(record) as temporary:
                temporary.write_text(json.dumps({"metric": self.save_best, "value": value, "iter": runner.iter}))
        runner.logger.info(f"Best {self.save_best} so far, {value:.4f}, saved as best.pth")

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Turn everything into plain data and leave the excluded parts out."""
        excluded = excluded_prefixes(runner.model)
        for key, prefix in (("state_dict", ""), ("ema_state_dict", "module.")):
            if key in checkpoint:
                checkpoint[key] = drop_prefixes(checkpoint[key], [prefix + name for name in excluded])
        for key in checkpoint.keys() - {"state_dict", "ema_state_dict", "optimizer"}:
            checkpoint[key] = to_plain(checkpoint[key])
        checkpoint["meta"]["ffplug_version"] = __version__

    def after_train(self, runner: Any) -> None:
        """Publish the last checkpoint's weights as ``weights.safetensors``."""
        path = Path(runner.work_dir) / f"iter_{runner.iter}.pth"
        if is_main_process() and path.is_file():
            target = publish(path, Path(runner.work_dir) / WEIGHTS_FILE, runner.cfg.get("model"))
            runner.logger.info(f"Weights published as {target}")

    # ---- loading

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Restore the log histories, and make the checkpoint fit the model.

        Raises:
            CheckpointError: The checkpoint to resume from, or to start from, is of another model.
        """
        if "message_hub" in checkpoint:
            checkpoint["message_hub"] = from_plain(checkpoint["message_hub"])
        if runner._resume and not {"state_dict", "meta", "optimizer", "message_hub"} <= checkpoint.keys():
            raise CheckpointError("the checkpoint to resume holds weights alone; start from it with load_from=PATH")
        fit(runner, checkpoint)


def bare(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model without its distributed wrapper."""
    return model.module if is_model_wrapper(model) else model


def fit(runner: Any, checkpoint: dict[str, Any]) -> None:
    """Check a loaded checkpoint against the runner's model, and leave a state dict in it that fits exactly.

    Excluded parts are filled in from the model. Where a training merely starts from the checkpoint, half of the model
    may be missing; it is filled in likewise, and a warning says so.

    Args:
        runner: The runner.
        checkpoint: What a file held; a bare state dict becomes a part of it, without ``module.``.

    Raises:
        CheckpointError: The checkpoint is of another model.
    """
    state = {key.removeprefix("module."): value for key, value in checkpoint.get("state_dict", checkpoint).items()}
    own = full_state_dict(runner.model)
    excluded = excluded_prefixes(runner.model)
    problems = describe_mismatch(own, state, excluded)
    fitting = {key: state[key] for key, value in own.items() if key in state and state[key].shape == value.shape}
    if problems and (runner._resume or 2 * len(drop_prefixes(fitting, excluded)) < len(drop_prefixes(own, excluded))):
        raise CheckpointError(
            f"the checkpoint is of another model: {problems}. Weights of a public implementation need "
            "`ffplug convert` first"
        )
    if problems:
        print_log(f"Only {len(fitting)} of {len(own)} tensors are loaded: {problems}", "current", logging.WARNING)
    checkpoint["state_dict"] = own | fitting


def excluded_prefixes(model: torch.nn.Module) -> tuple[str, ...]:
    """Return the state dict prefixes that this model wants left out of checkpoints."""
    prefixes = getattr(bare(model), "checkpoint_exclude_prefixes", tuple)
    return tuple(prefixes())


def drop_prefixes(state: Mapping[str, Any], prefixes: Iterable[str]) -> dict[str, Any]:
    """Return ``state`` without the keys that begin with one of ``prefixes``."""
    prefixes = tuple(prefixes)
    return {key: value for key, value in state.items() if not prefixes or not key.startswith(prefixes)}


def describe_mismatch(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], optional: tuple[str, ...] = ()
) -> str:
    """Say in one line how ``found`` differs from the ``expected`` state dict; empty if it fits.

    Args:
        expected: State dict of the model.
        found: State dict of a checkpoint.
        optional: Prefixes of keys that may be missing.
    """
    missing = [
        key
        for key in expected
        if key not in found and not key.startswith(optional or ("\0",)) and not key.endswith("num_batches_tracked")
    ]
    groups = {
        "missing": missing,
        "unexpected": [key for key in found if key not in expected],
        "of another shape": [key for key in found if key in expected and found[key].shape != expected[key].shape],
    }
    return "; ".join(
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in groups.items()
        if keys
    )


def to_plain(value: Any) -> Any:
    """Turn HistoryBuffers and NumPy values in nested containers into tensors and plain Python data.

    What is neither is dropped: schedulers hold a method of their own, datasets describe themselves with classes.
    """
    if isinstance(value, HistoryBuffer):
        log, count = value.data
        return {
            HISTORY: [torch.from_numpy(np.asarray(part, np.float64)) for part in (log, count)],
            "max_length": value.max_length,
        }
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(item) for key, item in value.items() if _is_plain(item)}
    if isinstance(value, (list, tuple, set)):
        items = [to_plain(item) for item in value if _is_plain(item)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return str(value) if isinstance(value, Path) else value


def _is_plain(value: Any) -> bool:
    kinds = (
        HistoryBuffer,
        Mapping,
        list,
        tuple,
        set,
        np.generic,
        np.ndarray,
        Path,
        torch.Tensor,
        str,
        int,
        float,
        bool,
    )
    return value is None or isinstance(value, kinds)


def from_plain(message_hub: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the log histories of a saved message hub back into HistoryBuffers."""
    scalars = {
        key: HistoryBuffer(*(part.cpu().numpy() for part in value[HISTORY]), max_length=value["max_length"])
        if isinstance(value, Mapping) and HISTORY in value
        else value
        for key, value in message_hub["log_scalars"].items()
    }
    return {**message_hub, "log_scalars": scalars}


def list_checkpoints(work_dir: str | Path) -> list[Path]:
    """Return the ``iter_*.pth`` of a folder, the newest iteration first."""
    found = [(re.fullmatch(r"iter_(\d+)\.pth", path.name), path) for path in Path(work_dir).glob("iter_*.pth")]
    return [path for _, path in sorted(((int(match[1]), path) for match, path in found if match), reverse=True)]


def find_resumable(work_dir: str | Path) -> Path | None:
    """Return the newest checkpoint of a folder that is whole, checking the sums of every record in it.

    A torn ``last_checkpoint`` or a torn newest file, as a full disk leaves it, does not stop a resume.

    Returns:
        Its path, or None if there is none.
    """
    for path in list_checkpoints(work_dir):
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is None:
                    return path
        except (zipfile.BadZipFile, OSError):
            pass
        print_log(f"{path} is damaged; looking for an older checkpoint", "current", logging.WARNING)
    return None


def publish(checkpoint: str | Path, target: str | Path, model_config: Mapping[str, Any] | None = None) -> Path:
    """Write a checkpoint's weights as safetensors.

    Args:
        checkpoint: A training checkpoint.
        target: Path of the ``.safetensors`` file.
        model_config: Config of the model, kept as JSON in the file's metadata.

    Returns:
        ``target``.

    Raises:
        CheckpointError: The checkpoint is unreadable.
    """
    content = load_from_local(checkpoint, "cpu")
    config = model_config.to_dict() if isinstance(model_config, ConfigDict) else model_config
    metadata = {
        "format": "pt",
        "ffplug_version": __version__,
        "model": json.dumps(config, default=str),
        "iterations": str(content["meta"].get("iter", 0)),
        "weights": "exponential moving average" if "ema_state_dict" in content else "last",
    }
    with atomic_path(target) as temporary:
        save_file(
            {key: value.contiguous().clone() for key, value in content["state_dict"].items()}, temporary, metadata
        )
    return Path(target)
