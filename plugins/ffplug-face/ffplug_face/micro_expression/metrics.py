"""Scores of micro-expression recognition: pooled over subjects, per data set, over seeds, and with intervals.

All scores come from one confusion matrix of pooled predictions, as the second Micro-Expressions Grand Challenge (MEGC
2019) defines them; scores of single subjects are never averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ffplug.errors import DataError

NAMES = ("UF1", "UAR", "UP", "Acc")
"""Scores of :func:`scores`: macro F1, macro recall, macro precision, accuracy (which is also micro F1)."""


def confusion_matrix(truth: Sequence[int], predicted: Sequence[int], classes: int = 3) -> np.ndarray:
    """Count the predictions.

    Args:
        truth: class of each clip, 0..classes-1.
        predicted: predicted class of each clip.
        classes: how many there are.

    Returns:
        classes×classes int64; rows are the truth, columns the prediction.

    Raises:
        DataError: the lists differ in length, or hold something that is no class.
    """
    true, guess = np.asarray(truth, dtype=np.int64).ravel(), np.asarray(predicted, dtype=np.int64).ravel()
    if len(true) != len(guess):
        raise DataError(f"{len(true)} true classes, but {len(guess)} predictions: expected one for each clip")
    both = np.concatenate([true, guess])
    if len(both) and (both.min() < 0 or both.max() >= classes):
        raise DataError(f"classes are 0..{classes - 1}, found {both.min()} to {both.max()}")
    return np.bincount(true * classes + guess, minlength=classes * classes).reshape(classes, classes)


def scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the scores of one or many confusion matrices.

    A class that is neither there nor predicted has an F1 of 0, one that is never predicted a precision of 0, and one
    that is not there a recall of 0, so that figures of subsets with fewer classes stay comparable.

    Args:
        confusion: ...×C×C counts, rows the truth.

    Returns:
        ``UF1``, ``UAR``, ``UP`` and ``Acc``, each of shape ``...``, and ``f1``, ``recall`` and ``precision``, ...×C;
        all in 0..1.
    """
    counts = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    present, predicted = counts.sum(-1), counts.sum(-2)
    f1, recall, precision = (_ratio(2 * hits, present + predicted), _ratio(hits, present), _ratio(hits, predicted))
    return {
        "UF1": f1.mean(-1),
        "UAR": recall.mean(-1),
        "UP": precision.mean(-1),
        "Acc": _ratio(hits.sum(-1), counts.sum((-2, -1))),
        "f1": f1,
        "recall": recall,
        "precision": precision,
    }


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0)


@dataclass(frozen=True)
class Predictions:
    """Predictions of one method on the clips of a leave-one-subject-out run, for each seed.

    Attributes:
        clips: N unique names.
        datasets: data set of each clip.
        subjects: subject of each clip, unique over the data sets.
        truth: N classes.
        probabilities: seeds×N×C, the rows in 0..1.
    """

    clips: tuple[str, ...]
    datasets: tuple[str, ...]
    subjects: tuple[str, ...]
    truth: np.ndarray
    probabilities: np.ndarray

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return self.probabilities.shape[-1]

    def subset(self, dataset: str) -> Predictions:
        """The clips of one data set alone."""
        keep = np.array([name == dataset for name in self.datasets])

        def kept(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name for name, wanted in zip(names, keep, strict=True) if wanted)

        return Predictions(
            kept(self.clips), kept(self.datasets), kept(self.subjects), self.truth[keep], self.probabilities[:, keep]
        )

    def ensemble(self) -> Predictions:
        """The average of the seeds' probabilities, as one seed."""
        mean = self.probabilities.mean(0, keepdims=True)
        return Predictions(self.clips, self.datasets, self.subjects, self.truth, mean)

    def confusion(self) -> np.ndarray:
        """Pooled confusion matrix of each seed, seeds×C×C."""
        predicted = self.probabilities.argmax(-1)
        return np.stack([confusion_matrix(self.truth, guess, self.classes) for guess in predicted])

    def confusion_by_subject(self) -> np.ndarray:
        """Confusion matrix of each seed and subject, seeds×S×C×C; subjects sorted by name."""
        names, index = np.unique(self.subjects, return_inverse=True)
        counts = np.zeros((len(self.probabilities), len(names), self.classes, self.classes), np.int64)
        for seed, guess in enumerate(self.probabilities.argmax(-1)):
            np.add.at(counts[seed], (index, self.truth, guess), 1)
        return counts


def summary(predictions: Predictions, resamples: int = 2000, seed: int = 0) -> dict[str, dict]:
    """Score a run as a whole and for each of its data sets.

    Returns:
        By ``"all"`` and the data sets' names: ``clips``, ``subjects``, ``confusion`` (summed over the seeds), and for
        each score of :data:`NAMES` a dict with ``mean`` and ``deviation`` (between seeds, ddof 1; 0 for one seed),
        ``seeds`` (a list), and ``interval``, the 95 % bootstrap interval over subjects of the seeds' mean.
    """
    parts = {"all": predictions}
    parts |= {name: predictions.subset(name) for name in sorted(set(predictions.datasets))}
    result = {}
    for name, part in parts.items():
        confusion = part.confusion()
        values = scores(confusion)
        drawn = bootstrap(part, resamples, seed)
        result[name] = {
            "clips": len(part.clips),
            "subjects": len(set(part.subjects)),
            "confusion": confusion.sum(0).tolist(),
            **{
                key: {
                    "mean": float(values[key].mean()),
                    "deviation": float(values[key].std(ddof=1)) if len(values[key]) > 1 else 0.0,
                    "seeds": values[key].tolist(),
                    "interval": np.quantile(drawn[key], [0.025, 0.975]).tolist(),
                }
                for key in NAMES
            },
        }
    return result


def bootstrap(predictions: Predictions, resamples: int = 2000, seed: int = 0) -> dict[str, np.ndarray]:
    """Score resampled runs, in which subjects are drawn with replacement and bring all their clips.

    Returns:
        By score, the mean over the seeds of each resample, ``resamples`` numbers.
    """
    weights = _draws(len(set(predictions.subjects)), resamples, seed)
    return _weighted(predictions, weights)


def paired_bootstrap(
    first: Predictions, second: Predictions, resamples: int = 2000, seed: int = 0
) -> dict[str, dict[str, float | list[float]]]:
    """Compare two methods on the same clips, on the same resampled subjects.

    Returns:
        By score: ``difference`` (second minus first, of the seeds' means), its 95 % ``interval``, and ``p``, the
        two-sided share of resamples in which the sign of the difference is another.

    Raises:
        DataError: the methods were not scored on the same clips.
    """
    for name in ("clips", "subjects"):
        if (ours := set(getattr(first, name))) != (theirs := set(getattr(second, name))):
            example = sorted(ours ^ theirs)[0]
            raise DataError(f"the runs differ in their {name}, for instance {example}: compare runs of one manifest")
    weights = _draws(len(set(first.subjects)), resamples, seed)
    ours, theirs = _weighted(first, weights), _weighted(second, weights)
    before, after = scores(first.confusion()), scores(second.confusion())
    result = {}
    for key in NAMES:
        drawn = theirs[key] - ours[key]
        below, above = float((drawn <= 0).mean()), float((drawn >= 0).mean())
        result[key] = {
            "difference": float(after[key].mean() - before[key].mean()),
            "interval": np.quantile(drawn, [0.025, 0.975]).tolist(),
            "p": min(1.0, 2 * min(below, above)),
        }
    return result


def _draws(subjects: int, resamples: int, seed: int) -> np.ndarray:
    """How often each subject is in each resample, resamples×S."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=resamples)


def _weighted(predictions: Predictions, weights: np.ndarray) -> dict[str, np.ndarray]:
    confusion = np.einsum("rs,kscd->rkcd", weights, predictions.confusion_by_subject())
    values = scores(confusion)
    return {key: values[key].mean(1) for key in NAMES}
