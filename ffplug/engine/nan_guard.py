"""Stopping at the first non-finite loss, with the names of the files that gave it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size, is_main_process
from mmengine.hooks import Hook

from ffplug.errors import FFPlugError
from ffplug.files import atomic_path
from ffplug.registry import HOOKS

NAMED = ("sample_id", "img1_path", "img2_path", "flow_path", "dataset", "draw")


@HOOKS.register_module()
class NaNGuardHook(Hook):
    """Stop training when a loss, or the gradient norm where it is clipped, is not finite.

    It acts before a checkpoint could be saved, so the newest checkpoint is a good one. The batch is written to
    ``non_finite_batch.json`` in the work folder: iteration, value of every loss term, and each sample's files, with a
    note if its true flow is not finite where it is valid. An overflow of float16 gradients is no reason to stop: the
    loss scaler skips such an update.

    Raises:
        FFPlugError: In ``after_train_iter``, naming the terms and the files, on every rank at once.
    """

    priority = "VERY_HIGH"

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look at the losses of the iteration that was just done."""
        terms = {name: float(torch.as_tensor(value).detach()) for name, value in (outputs or {}).items()}
        scaler = getattr(runner.optim_wrapper, "loss_scaler", None)
        if "train/grad_norm" in runner.message_hub.log_scalars and not (scaler is not None and scaler.is_enabled()):
            terms["grad_norm"] = float(runner.message_hub.get_scalar("train/grad_norm").current())
        bad = [name for name, value in terms.items() if not math.isfinite(value)]
        flag = torch.tensor(float(bool(bad)))
        all_reduce(flag, "max")
        if not flag:
            return
        samples = describe_batch(data_batch)
        if get_world_size() > 1:
            samples = [sample for part in all_gather_object(samples) for sample in part]
        report = Path(runner.work_dir) / "non_finite_batch.json"
        if is_main_process():
            shown = {name: value if math.isfinite(value) else str(value) for name, value in terms.items()}
            with atomic_path(report) as temporary:
                temporary.write_text(
                    json.dumps({"iteration": runner.iter + 1, "terms": shown, "samples": samples}, indent=2)
                )
        files = ", ".join(str(sample.get("img1_path") or sample.get("sample_id") or "?") for sample in samples)
        raise FFPlugError(
            f"{', '.join(f'{name}={terms[name]}' for name in bad) or 'a loss of another rank'} at iteration "
            f"{runner.iter + 1}; the batch was: {files} (see {report}). "
            f"The newest checkpoint in {runner.work_dir} is good"
        )


def describe_batch(data_batch: Any) -> list[dict[str, Any]]:
    """Return what names each sample of a batch, and ``finite_flow`` where there is a true flow."""
    samples = data_batch.get("data_samples", ()) if isinstance(data_batch, dict) else ()
    described = []
    for sample in samples or ():
        entry = {name: getattr(sample, name) for name in NAMED if getattr(sample, name, None) is not None}
        flow, valid = getattr(sample, "gt_flow", None), getattr(sample, "gt_valid", None)
        if flow is not None:
            inside = flow if valid is None else flow[:, valid > 0]
            entry["finite_flow"] = bool(torch.isfinite(inside).all())
        described.append(entry)
    return described
