"""Whether two pictures show the same person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ffplug.errors import DataError
from ffplug.evaluation import GatheredMetric
from ffplug_latentface.registry import METRICS


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarity of rows N×D."""
    return torch.nn.functional.cosine_similarity(first.double(), second.double())


def verification_accuracy(similarity: Tensor, same: Tensor, folds: int = 10) -> tuple[float, float]:
    """The protocol of LFW: the best threshold of nine folds is applied to the tenth.

    Args:
        similarity: N, in the order of the list of pairs.
        same: N bool.
        folds: of consecutive pairs, as many in each.

    Returns:
        Mean accuracy of the folds and its deviation, 0..1. Thresholds are tried from -1 to 1 in steps of 0.005.

    Raises:
        DataError: the pairs do not divide into the folds.
    """
    if folds < 2 or not len(similarity) or len(similarity) % folds:
        raise DataError(f"{len(similarity)} pairs: expected a multiple of {folds} folds")
    thresholds = torch.arange(-1, 1.0001, 0.005, dtype=torch.float64)
    right = (similarity.double()[None] > thresholds[:, None]) == same[None]
    right = right.view(len(thresholds), folds, -1).double().mean(2)
    accuracies = []
    for fold in range(folds):
        others = right.sum(1) - right[:, fold]
        accuracies.append(right[int(others.argmax()), fold])
    accuracy = torch.stack(accuracies)
    return float(accuracy.mean()), float(accuracy.std())


def area_under_curve(similarity: Tensor, same: Tensor) -> float:
    """Area under the ROC curve: how often a pair of one person is more alike than one of two; ties count half."""
    ranks = torch.searchsorted(similarity[~same].sort().values, similarity[same])
    ties = torch.searchsorted(similarity[~same].sort().values, similarity[same], right=True)
    return float((ranks + ties).double().mean() / (2 * max(1, int((~same).sum()))))


def roc_curve(similarity: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """The ROC curve of verification.

    Args:
        similarity: N.
        same: N bool.

    Returns:
        Shares of pairs of two persons, and of one, that pass as one person: a point for each similarity that occurs, as
        the threshold falls; from (0, 0) to (1, 1).

    Raises:
        DataError: all pairs show the same person, or none does.
    """
    total = int(same.sum())
    if total in (0, len(same)):
        raise DataError(f"{total} of {len(same)} pairs show the same person: expected some, and not all")
    order = similarity.double().argsort(descending=True)
    values, right = similarity.double()[order], same[order].long().cumsum(0)
    last = torch.cat((values[1:] != values[:-1], values.new_ones(1, dtype=torch.bool)))
    passed = torch.arange(1, len(values) + 1)[last]
    true = torch.cat((right.new_zeros(1), right[last])).double()
    false = torch.cat((passed.new_zeros(1), passed)).double() - true
    return false / (len(same) - total), true / total


def equal_error_rate(similarity: Tensor, same: Tensor) -> float:
    """The error rate, 0..1, at the threshold where as many pairs of two persons pass as pairs of one fail.

    Raises:
        DataError: all pairs show the same person, or none does.
    """
    false, true = roc_curve(similarity, same)
    missed = 1 - true
    place = int((false >= missed).nonzero()[0])
    if place == 0:
        return float(false[0])
    before, after = missed[place - 1] - false[place - 1], false[place] - missed[place]
    share = before / (before + after)
    return float(false[place - 1] + share * (false[place] - false[place - 1]))


@METRICS.register_module()
class VerificationMetric(GatheredMetric):
    """Verification by the codes of all pairs of frames of different videos' persons, and of one.

    Samples need ``pred_identity`` and ``pred_expression`` (N×D) and ``person``. Logged are areas under the ROC curve:
    ``verification/identity``, which should be near 1, and ``verification/expression``, which should be near 0.5: above
    it, identity leaks into expression.

    Args:
        collect_device: see MMEngine's ``BaseMetric``.
        prefix: start of the names in the log.

    Example:
        dict(type="ffplug_latentface.VerificationMetric")
    """

    default_prefix = "verification"

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep the codes of a batch of samples, given as dicts."""
        for sample in data_samples:
            key = sample.get("dataset"), sample.get("sample_id")
            codes = sample["pred_identity"].cpu(), sample["pred_expression"].cpu()
            self.results.append((key, str(sample["person"]), *codes))

    def compute_metrics(self, results: list[tuple[Any, str, Tensor, Tensor]]) -> dict[str, float]:
        """The figures of all ranks' videos; those that a sampler repeated count once.

        Raises:
            DataError: there is but one person.
        """
        videos = {key: values for key, *values in results}.values()
        numbers = {person: index for index, person in enumerate(sorted({person for person, *_ in videos}))}
        if len(numbers) < 2:
            raise DataError("VerificationMetric: the videos show one person: expected two or more")
        person = torch.cat([torch.full((len(identity),), numbers[name]) for name, identity, _ in videos])
        first, second = torch.triu_indices(len(person), len(person), 1)
        same = person[first] == person[second]
        figures = {}
        for name, place in (("identity", 1), ("expression", 2)):
            codes = torch.cat([video[place] for video in videos])
            figures[f"{self.prefix}/{name}"] = area_under_curve(cosines(codes[first], codes[second]), same)
        return figures
