"""Figures of expression recognition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ffplug.evaluation import GatheredMetric
from ffplug_latentface.registry import METRICS


def macro_f1(predicted: Tensor, true: Tensor, classes: int) -> float:
    """Mean of the classes' F1; classes that neither list has are left out."""
    scores = []
    for index in range(classes):
        found, real = predicted == index, true == index
        total = int(found.sum() + real.sum())
        if total:
            scores.append(2 * int((found & real).sum()) / total)
    return sum(scores) / len(scores) if scores else math.nan


@METRICS.register_module()
class ExpressionMetric(GatheredMetric):
    """Accuracy, macro-F1, and 0.67 F1 + 0.33 accuracy, each in 0..1; logged as ``expression/accuracy`` and so on.

    Samples need ``pred_expr_probability`` and ``gt_expr``.

    Args:
        collect_device: see MMEngine's ``BaseMetric``.
        prefix: start of the names in the log.

    Example:
        dict(type="ffplug_latentface.ExpressionMetric")
    """

    default_prefix = "expression"

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Take a batch of predicted samples, given as dicts."""
        for sample in data_samples:
            odds = sample["pred_expr_probability"]
            key = sample.get("dataset"), sample.get("sample_id")
            self.results.append((key, int(odds.argmax()), int(sample["gt_expr"]), len(odds)))

    def compute_metrics(self, results: list[tuple[Any, int, int, int]]) -> dict[str, float]:
        """The figures of all ranks' samples; those that a sampler repeated count once."""
        unique = {key: values for key, *values in results}
        predicted, true, classes = torch.tensor(list(unique.values())).T
        accuracy = float((predicted == true).double().mean())
        f1 = macro_f1(predicted, true, int(classes.max()))
        figures = {"accuracy": accuracy, "f1": f1, "score": 0.67 * f1 + 0.33 * accuracy}
        return {f"{self.prefix}/{name}": value for name, value in figures.items()}
