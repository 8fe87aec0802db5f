"""Samplers that draw what is rare more often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ffplug.datasets.base import choose
from ffplug.datasets.samplers import FlowSampler
from ffplug.datasets.seeding import SeededIndex, derive_seed
from ffplug.errors import ConfigError
from ffplug_fpnmaa.labels import TASKS
from ffplug_fpnmaa.registry import DATA_SAMPLERS


def labels_of(dataset: Any, task: str) -> list[Any]:
    """The labels of a data set, also of one that joins or repeats others; None where they are not known."""
    if hasattr(dataset, "labels"):
        return dataset.labels(task)
    if hasattr(dataset, "datasets"):
        dataset.full_init()
        return [label for part in dataset.datasets for label in labels_of(part, task)]
    if hasattr(dataset, "times"):
        return labels_of(dataset.dataset, task) * dataset.times
    return [None] * len(dataset)


def balance_weights(labels: Sequence[Any], task: str, power: float = 1.0, bins: int = 4) -> np.ndarray:
    """Weights of samples whose mean is 1: large where a label is rare.

    Args:
        labels: of the samples, None where unknown: such a sample weighs 1.
        task: ``expr``: by the frequency of the class; ``au``: by that of the rarest unit which is there (as ML-ROS
            does), or of there being none; ``va``: by that of the cell of a grid over valence and arousal.
        power: 0 weighs all alike, 1 makes all labels alike frequent.
        bins: cells of the grid along each side.
    """
    known = np.array([label is not None for label in labels])
    weights = np.ones(len(labels))
    if not known.any():
        return weights
    values = np.array([label for label in labels if label is not None], np.float64)
    if task == "au":
        counts = np.maximum(values.sum(axis=0), 1)
        rarest = np.where(values > 0, counts[None], np.inf).min(axis=1)
        frequency = np.where(np.isfinite(rarest), rarest, max(1, (values.sum(axis=1) == 0).sum()))
    else:
        if task == "va":
            cells = np.clip(((values + 1) / 2 * bins).astype(int), 0, bins - 1)
            values = cells[:, 0] * bins + cells[:, 1]
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        frequency = counts[place.reshape(-1)]
    inverse = frequency.astype(np.float64) ** -power
    weights[known] = inverse / inverse.mean()
    return weights


@DATA_SAMPLERS.register_module()
class BalancedSampler(FlowSampler):
    """The numbered stream of :class:`ffplug.FlowSampler`, with samples drawn by weights, again and again.

    A training on it can be cut and resumed exactly, on any number of ranks.

    Args:
        dataset: of this plugin, or several of them joined.
        by: the task whose labels are balanced: ``expr``, ``au`` or ``va``.
        power: see :func:`balance_weights`.
        bins: see there.
        infinite: see :class:`ffplug.FlowSampler`.
        seed: see there.
        round_up: see there.

    Example:
        dict(type="ffplug_fpnmaa.BalancedSampler", by="expr")
    """

    def __init__(
        self,
        dataset: Any,
        by: str = "expr",
        power: float = 1.0,
        bins: int = 4,
        infinite: bool = True,
        seed: int | None = None,
        round_up: bool = True,
    ) -> None:
        super().__init__(dataset, shuffle=True, infinite=infinite, seed=seed, round_up=round_up)
        if not 0 <= power <= 2 or bins < 1:
            raise ConfigError(f"power={power}, bins={bins}: expected 0..2, and at least 1")
        self.weights = balance_weights(labels_of(dataset, choose("by", by, TASKS)), by, power, bins)
        self._steps = np.cumsum(self.weights) / self.weights.sum()

    def index(self, draw: int) -> SeededIndex:
        """Return the sample at a position of the stream."""
        epoch, offset = divmod(draw, self.length)
        key = (self.seed, epoch)
        if self._order is None or self._order[0] != key:
            drawn = np.random.default_rng(derive_seed(self.seed, "balanced order", epoch)).random(self.length)
            order = np.searchsorted(self._steps, drawn, side="right")
            self._order = (key, np.minimum(order, self.length - 1))
        return SeededIndex(int(self._order[1][offset]), draw, self.seed)
