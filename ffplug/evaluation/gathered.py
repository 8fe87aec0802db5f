"""What metrics share whose figures need the records of all ranks at once."""

from __future__ import annotations

from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric


class GatheredMetric(BaseMetric):
    """A metric that is computed once, over the records of all ranks, and is the same on each.

    MMEngine's own collecting cuts the records off at the data set's size, which is wrong where a sample leaves none or
    several. A subclass's ``process`` extends ``results``; its ``compute_metrics`` tells repeated samples by name.
    """

    def evaluate(self, size: int) -> dict[str, float]:
        """Collect the records of all ranks and return the figures.

        Args:
            size: kept for MMEngine's interface.
        """
        gathered = [record for part in all_gather_object(self.results) for record in part]
        self.results.clear()
        answer: list[dict[str, float] | None] = [None]
        if is_main_process():
            answer = [self.compute_metrics(gathered)]
        broadcast_object_list(answer)
        return answer[0] or {}
