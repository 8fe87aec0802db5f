"""Training by iterations, resumable to the last digit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, broadcast, get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.runner import BaseLoop
from torch.utils.data import DataLoader

from ffplug.datasets.seeding import derive_seed, seed_everything
from ffplug.errors import ConfigError
from ffplug.registry import LOOPS

SAMPLES = "samples"
"""Where the message hub, which checkpoints hold, keeps how many samples were trained on."""


@LOOPS.register_module()
class IterBasedTrainLoop(BaseLoop):
    """Train for a number of iterations; a resumed run goes on exactly as the uninterrupted one would have.

    Three things make it so. The sampler's stream starts at the first sample that was not yet trained on, so nothing
    is replayed. Each sample's randomness follows from its place in the stream
    (:mod:`ffplug.datasets.seeding`). Before each iteration the global generators are seeded from (seed, iteration,
    rank), so dropout, noise and the like do not depend on what was drawn before either. What does depend on it in
    MMEngine: its own loop replays every batch, or with the fork skips them and loses the randomness.

    Over several ranks the logged losses are the means over the ranks, those of the global batch. A resumed run may have
    another number of ranks, or another batch: no sample of the stream is left out or taken twice.

    An iteration is one forward and backward pass: with ``accumulative_counts=k`` in the optimiser wrapper, the
    parameters change every k-th iteration.

    Args:
        runner: The runner.
        dataloader: A loader or its config; its sampler must be able to start anywhere, as ``ffplug.FlowSampler``.
        max_iters: Iterations in all, > 0.
        val_interval: Validate each time this many iterations are done, and at the end.
        val_begin: Do not validate before this many iterations are done.

    Raises:
        ConfigError: The sampler cannot start anywhere, or stops.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        max_iters: int,
        val_interval: int = 1000,
        val_begin: int = 1,
    ) -> None:
        super().__init__(runner, dataloader)
        if max_iters < 1 or val_interval < 1:
            raise ConfigError(
                f"train_cfg: max_iters and val_interval must be at least 1, not {max_iters} and {val_interval}"
            )
        sampler = self.dataloader.sampler
        if not hasattr(sampler, "set_start") or not getattr(sampler, "infinite", True):
            raise ConfigError(
                f"train_dataloader.sampler: {type(sampler).__name__} cannot resume; "
                "write sampler=dict(type='ffplug.FlowSampler', infinite=True)"
            )
        self.val_interval = val_interval
        self.val_begin = val_begin
        self.stop_training = False
        self._max_iters = int(max_iters)
        self._iter = 0
        self._epoch = 0
        self._initial_seed = runner.seed
        self.runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, "metainfo", None)

    @property
    def max_iters(self) -> int:
        """Iterations in all."""
        return self._max_iters

    @property
    def max_epochs(self) -> int:
        """Always 1: to the hooks, the whole training is one epoch."""
        return 1

    @property
    def iter(self) -> int:
        """Iterations done."""
        return self._iter

    @property
    def epoch(self) -> int:
        """Always 0 in a training from scratch."""
        return self._epoch

    def run(self) -> torch.nn.Module:
        """Train from the current iteration to the last.

        Returns:
            The trained model.
        """
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        batches = iter(self._positioned_dataloader())
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            if self._validation_is_due():
                self._validate()
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    @property
    def _global_batch(self) -> int:
        return self.dataloader.batch_size * get_world_size()

    def _positioned_dataloader(self) -> DataLoader:
        sampler = self.dataloader.sampler
        if sampler.seed == self._initial_seed:  # not one of its own: it follows the run's, which a resume restores
            sampler.seed = self.runner.seed
        # The stream goes on where it was, however many processes came to it before.
        done = self._iter * self._global_batch
        if self._iter:
            done = self.runner.message_hub.get_info(SAMPLES, done)
        self.runner.message_hub.update_info(SAMPLES, done)
        sampler.set_start(done)
        if self._iter:
            print_log(f"Resuming at iteration {self._iter}; no data is replayed", "current", logging.INFO)
        return self.dataloader

    def run_iter(self, data_batch: dict | Sequence) -> None:
        """Train on one batch."""
        hub = self.runner.message_hub
        hub.update_info(SAMPLES, hub.get_info(SAMPLES) + self._global_batch)
        self.runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=data_batch)
        seed_everything(derive_seed(self.runner.seed, "iteration", self._iter, get_rank()))
        outputs = self.runner.model.train_step(data_batch, optim_wrapper=self.runner.optim_wrapper)
        self.runner.call_hook(
            "after_train_iter",
            batch_idx=self._iter,
            data_batch=data_batch,
            outputs=self._mean_over_ranks(outputs),
        )
        self._iter += 1

    @staticmethod
    def _mean_over_ranks(losses: dict[str, Any]) -> dict[str, Any]:
        if get_world_size() == 1:
            return losses
        names = sorted(losses)
        means = torch.stack(
            [torch.as_tensor(losses[name], dtype=torch.float32, device=get_device()).detach() for name in names]
        )
        all_reduce(means, "mean")
        return dict(zip(names, means, strict=True))

    def _validation_is_due(self) -> bool:
        if self.runner.val_loop is None or self._iter < self.val_begin:
            return False
        return self._iter % self.val_interval == 0 or self._iter == self._max_iters

    def _validate(self) -> None:
        if get_world_size() > 1:  # running statistics differ per rank; all are measured, and saved, with the first's
            for buffer in self.runner.model.buffers():
                broadcast(buffer)
        self.runner.val_loop.run()
