"""How many iterations ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from ffplug_iterpolicy.registry import METRICS


@METRICS.register_module()
class StepsMetric(BaseMetric):
    """Mean number of iterations that an iteration policy ran, over all pairs.

    Args:
        collect_device: see MMEngine's ``BaseMetric``.
        prefix: what the name begins with.

    Example:
        dict(type="ffplug_iterpolicy.StepsMetric")
    """

    def __init__(self, collect_device: str = "cpu", prefix: str = "iterpolicy") -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the samples' numbers; samples of a network without policy have none."""
        self.results += [float(sample["pred_steps"]) for sample in data_samples if "pred_steps" in sample]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """``PREFIX/steps``; nothing where no policy ran."""
        return {"steps": sum(results) / len(results)} if results else {}
