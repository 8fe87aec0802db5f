"""Progress with the time that is left."""

from __future__ import annotations

import logging
import sys
import time
from datetime import timedelta
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from ffplug.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show iteration, speed, time left and loss: a bar in a terminal, a plain line now and then elsewhere.

    Args:
        interval_s: Seconds between two plain lines.
    """

    priority = "LOW"

    def __init__(self, interval_s: float = 30.0) -> None:
        self.interval_s = interval_s
        self._bar: Any = None

    def before_train(self, runner: Any) -> None:
        """Begin."""
        self._first = runner.iter
        self._began = self._shown = time.monotonic()
        if is_main_process() and sys.stdout.isatty():
            self._open_bar(runner)

    def _open_bar(self, runner: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            "training",
            BarColumn(),
            MofNCompleteColumn(),
            "ETA",
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
        )
        self._bar = Progress(*columns)
        terminal = sys.stdout
        self._bar.start()
        self._task = self._bar.add_task("training", total=runner.max_iters, completed=runner.iter, loss="")
        self._redirected = [
            handler for handler in runner.logger.handlers if getattr(handler, "stream", None) is terminal
        ]
        for handler in self._redirected:  # log lines then scroll above the bar instead of through it
            handler.setStream(sys.stdout)
        self._terminal = terminal

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Show where training is."""
        if not is_main_process():
            return
        done = runner.iter + 1
        loss = f"loss {float(torch.as_tensor(outputs['loss']).detach()):.4f}" if outputs and "loss" in outputs else ""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, loss=loss)
        elif (now := time.monotonic()) - self._shown >= self.interval_s:
            self._shown = now
            per_iteration = (now - self._began) / (done - self._first)
            left = timedelta(seconds=round(per_iteration * (runner.max_iters - done)))
            runner.logger.log(
                logging.INFO, f"training {done}/{runner.max_iters}, {per_iteration:.2f} s/iteration, ETA {left}, {loss}"
            )

    def after_train(self, runner: Any) -> None:
        """End the bar."""
        self.close()

    def close(self) -> None:
        """Give the terminal back; also called when training breaks off."""
        if self._bar is not None:
            self._bar.stop()
            for handler in self._redirected:
                handler.setStream(self._terminal)
            self._bar = None
