"""Figures of expression recognition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ffplug_face.affect import expression_scores

from ffplug.evaluation import GatheredMetric
from ffplug_latentface.registry import METRICS


@METRICS.register_module()
class ExpressionMetric(GatheredMetric):
    """Accuracy, macro-F1, and 0.67 F1 + 0.33 accuracy, each in 0..1; logged as ``expression/accuracy`` and so on.

    Classes that are neither there nor predicted do not count in F1.

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
        predicted, true, classes = np.array(list(unique.values())).T
        scores = expression_scores(predicted, true, int(classes.max()), classes="present")
        figures = {"accuracy": scores.accuracy, "f1": scores.macro_f1, "score": scores.score}
        return {f"{self.prefix}/{name}": value for name, value in figures.items()}
