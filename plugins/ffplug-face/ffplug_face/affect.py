"""The figures of ABAW2 as functions of arrays, over all samples of a set at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ffplug.errors import ConfigError, DataError

CLASSES = ("all", "present")
THRESHOLDS = ("probability", "logit")
MODEL = "model"
"""Thresholds of action units as the model has them, one for each unit."""
LOGIT = 1 / (1 + np.exp(-0.5))
"""The probability whose logit is 0.5, which the public code takes for a probability."""


def ccc(prediction: np.ndarray, truth: np.ndarray, eps: float = 0.0) -> float:
    """Lin's concordance correlation coefficient with the statistics of the population.

    Args:
        prediction: N numbers.
        truth: N numbers.
        eps: added to both denominators, that of the correlation (a root of sums of squares) and that of the
            coefficient; the public code adds 1e-5.

    Returns:
        The coefficient in -1..1; 0 where one of them never varies, NaN for no samples.
    """
    x, y = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise DataError(f"CCC of {x.shape} and {y.shape}: expected two vectors of one length")
    if not len(x):
        return float("nan")
    deviations, gap = x.std() * y.std(), (x.mean() - y.mean()) ** 2
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    denominators = deviations + eps / len(x), x.var() + y.var() + gap + eps
    if min(denominators) <= 0:
        return 0.0
    return float(2 * covariance / denominators[0] * deviations / denominators[1])


@dataclasses.dataclass(frozen=True)
class ExpressionScores:
    """What :func:`expression_scores` gives.

    Attributes:
        f1: of each class, 0 where it is neither there nor predicted.
        macro_f1: mean over classes.
        accuracy: share of right samples.
        score: ABAW2's, .67 macro-F1 + .33 accuracy.
        confusion: K×K counts, rows are predictions.
    """

    f1: np.ndarray
    macro_f1: float
    accuracy: float
    score: float
    confusion: np.ndarray


def expression_scores(prediction: np.ndarray, truth: np.ndarray, count: int, classes: str = "all") -> ExpressionScores:
    """Scores of expressions.

    Args:
        prediction: N classes.
        truth: N classes.
        count: number of classes K.
        classes: ``all`` takes the mean of F1 over all K, as the competition does; ``present`` over those that occur in
            the truth or the predictions, as the public code does.
    """
    if classes not in CLASSES:
        raise ConfigError(f"classes={classes!r}: expected one of {', '.join(CLASSES)}")
    pairs = np.stack([np.asarray(prediction), np.asarray(truth)]).astype(np.int64)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= count):
        raise DataError(f"an expression is class {pairs.max() if pairs.max() >= count else pairs.min()} of {count}")
    confusion = np.bincount(pairs[0] * count + pairs[1], minlength=count * count).reshape(count, count)
    right, occur = np.diag(confusion).astype(np.float64), confusion.sum(axis=0) + confusion.sum(axis=1)
    f1 = 2 * right / np.maximum(occur, 1)
    counted = f1 if classes == "all" else f1[occur > 0]
    macro = float(counted.mean()) if counted.size else float("nan")
    accuracy = float(right.sum() / confusion.sum()) if confusion.sum() else float("nan")
    return ExpressionScores(f1, macro, accuracy, 0.67 * macro + 0.33 * accuracy, confusion)


@dataclasses.dataclass(frozen=True)
class UnitScores:
    """What :func:`unit_scores` gives.

    Attributes:
        f1: of each unit; 1 where it is neither there nor predicted.
        mean_f1: mean over units.
        accuracy: share of right entries of the N×U table.
        score: ABAW2's, the mean of both.
    """

    f1: np.ndarray
    mean_f1: float
    accuracy: float
    score: float


def unit_scores(probability: np.ndarray, truth: np.ndarray, threshold: float | Sequence[float] = 0.5) -> UnitScores:
    """Scores of action units.

    Args:
        probability: N×U.
        truth: N×U of 0 or 1.
        threshold: of the probability, for all units or each; :data:`LOGIT` is what the public code does.
    """
    found, there = np.asarray(probability) > np.asarray(threshold), np.asarray(truth) > 0.5
    if found.shape != there.shape or found.ndim != 2:
        raise DataError(f"action units {found.shape} and {there.shape}: expected two tables N×U")
    right, either = (found & there).sum(axis=0), found.sum(axis=0) + there.sum(axis=0)
    f1 = np.where(either > 0, 2 * right / np.maximum(either, 1), 1.0)
    if not len(found):
        return UnitScores(f1, float("nan"), float("nan"), float("nan"))
    accuracy = float((found == there).mean())
    return UnitScores(f1, float(f1.mean()), accuracy, (float(f1.mean()) + accuracy) / 2)


def best_thresholds(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The threshold of each unit at which its F1 is largest; choose them on other people than those of a test.

    Args:
        probability: N×U.
        truth: N×U of 0 or 1.

    Returns:
        U numbers, each in the middle between two probabilities; the nearest one to .5 where several do, and .5 for a
        unit that is never or always there.
    """
    odds, there = np.asarray(probability, np.float64), np.asarray(truth) > 0.5
    if odds.shape != there.shape or odds.ndim != 2:
        raise DataError(f"action units {odds.shape} and {there.shape}: expected two tables N×U")
    chosen = np.full(odds.shape[1], 0.5)
    for unit in range(odds.shape[1]):
        positives = there[:, unit].sum()
        if not 0 < positives < len(there):
            continue
        values, places, counts = np.unique(odds[:, unit], return_inverse=True, return_counts=True)
        hits = np.bincount(places.reshape(-1), there[:, unit], len(values))
        above = np.cumsum(counts[::-1])[::-1]  # predicted where everything from this value on is
        f1 = 2 * np.cumsum(hits[::-1])[::-1] / (above + positives)
        middles = (np.concatenate([[0.0], values[:-1]]) + values) / 2
        best = f1 >= f1.max() - 1e-12
        chosen[unit] = min(middles[best], key=lambda middle: abs(middle - 0.5))
    return chosen
