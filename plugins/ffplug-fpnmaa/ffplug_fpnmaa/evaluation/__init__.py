"""The figures of the ABAW2 competition, over a whole set."""

from ffplug_fpnmaa.evaluation.affect_metric import AffectMetric
from ffplug_fpnmaa.evaluation.scores import (
    ExpressionScores,
    UnitScores,
    best_thresholds,
    ccc,
    expression_scores,
    unit_scores,
)

__all__ = [
    "AffectMetric",
    "ExpressionScores",
    "UnitScores",
    "best_thresholds",
    "ccc",
    "expression_scores",
    "unit_scores",
]
