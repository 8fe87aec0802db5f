"""The report at the end of a run, and the record of what ran where."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import mmengine
import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log

from ffplug.errors import FFPlugError
from ffplug.evaluation import FlowMetric
from ffplug.registry import HOOKS
from ffplug.structures import shown_name
from ffplug.version import __version__
from ffplug.visualization.report import METRICS_FILE, RUN_FILE, write_report


@HOOKS.register_module()
class ReportHook(Hook):
    """Writes ``work_dir/report.html`` after training and after testing, and what the report needs.

    Each run leaves ``run.json`` in its own folder (start, wall time, device, data, versions), and each
    :class:`ffplug.FlowMetric` without an ``out_file`` writes to ``work_dir/metrics.json``. A report that cannot be
    written is a warning: the finished work stays.
    """

    priority = "LOWEST"

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._record: dict[str, Any] = {}

    def before_run(self, runner: Any) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def before_train(self, runner: Any) -> None:
        """Record the training's data and environment."""
        data = list(_leaves(runner.train_loop.dataloader.dataset))
        self._begin(runner, "train", data)

    def before_val(self, runner: Any) -> None:
        """Point the metrics at the work directory's JSON."""
        loop = runner.val_loop
        iteration = runner.iter if _is_built(runner._train_loop) else None
        _direct(getattr(loop, "evaluator", None), runner.work_dir, mode="val", iteration=iteration)
        if not self._record:
            self._begin(runner, "val", [])

    def before_test(self, runner: Any) -> None:
        """Point the metrics at the work directory's JSON, and record the environment."""
        _direct(
            getattr(runner.test_loop, "evaluator", None),
            runner.work_dir,
            mode="test",
            iteration=None,
            checkpoint=getattr(runner, "_load_from", None),
        )
        self._begin(runner, "test", [])

    def after_train(self, runner: Any) -> None:
        """Write the report."""
        self._finish(runner)

    def after_test(self, runner: Any) -> None:
        """Write the report."""
        self._finish(runner)

    @master_only
    def _begin(self, runner: Any, mode: str, data: list[tuple[str, bool]]) -> None:
        self._record = dict(
            mode=mode,
            started=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S"),
            wall_seconds=None,
            device=_device_name(runner),
            data=sorted({shown_name(*item) for item in data}),
            procedural=sorted({shown_name(*item) for item in data if item[1]}),
            environment=environment(),
        )
        self._save(runner)

    @master_only
    def _finish(self, runner: Any) -> None:
        self._record["wall_seconds"] = round(time.monotonic() - self._started, 3)
        self._save(runner)
        try:
            path = write_report(runner.work_dir)
        except (FFPlugError, OSError) as error:
            print_log(f"The report could not be written: {error}", logger="current", level=30)
        else:
            print_log(f"Report: {path}", logger="current")

    def _save(self, runner: Any) -> None:
        path = Path(runner.log_dir) / RUN_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._record, indent=1), encoding="utf-8")


def _is_built(loop: Any) -> bool:
    return loop is not None and not isinstance(loop, dict)


def _direct(evaluator: Any, work_dir: str, **context: Any) -> None:
    for metric in getattr(evaluator, "metrics", []):
        if isinstance(metric, FlowMetric):
            metric.out_file = metric.out_file or Path(work_dir) / METRICS_FILE
            metric.context = {key: value for key, value in context.items() if value is not None}


def _leaves(dataset: Any) -> Iterator[tuple[str, bool]]:
    """Yield name and marker of each data set inside MMEngine's wrappers."""
    inner = getattr(dataset, "datasets", None) or ([dataset.dataset] if hasattr(dataset, "dataset") else None)
    if inner:
        for part in inner:
            yield from _leaves(part)
    else:
        meta = getattr(dataset, "metainfo", {})
        yield str(meta.get("dataset", type(dataset).__name__)), bool(meta.get("procedural"))


def _device_name(runner: Any) -> str:
    parameter = next(runner.model.parameters(), None)
    if parameter is not None and parameter.device.type == "cuda":
        return torch.cuda.get_device_name(parameter.device)
    return f"{parameter.device.type if parameter is not None else 'cpu'}, {os.cpu_count()} cores"


def environment() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "ffplug": __version__,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "mmengine": mmengine.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
