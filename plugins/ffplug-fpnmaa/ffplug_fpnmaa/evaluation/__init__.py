"""The figures of the ABAW2 competition, over a whole set."""

from ffplug_face.affect import (
    ExpressionScores,
    UnitScores,
    best_thresholds,
    ccc,
    expression_scores,
    unit_scores,
)

from ffplug_fpnmaa.evaluation.affect_metric import AffectMetric

__all__ = [
    "AffectMetric",
    "ExpressionScores",
    "UnitScores",
    "best_thresholds",
    "ccc",
    "expression_scores",
    "unit_scores",
]
