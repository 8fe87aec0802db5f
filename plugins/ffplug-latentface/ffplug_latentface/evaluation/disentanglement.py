"""How well codes tell known factors, and how well they keep them apart."""

from __future__ import annotations

import torch
from torch import Tensor

from ffplug.errors import DataError


def ridge(codes: Tensor, factors: Tensor, strength: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Ridge regression on standardised codes.

    Args:
        codes: N×D.
        factors: N×K.
        strength: of the penalty.

    Returns:
        Weights (D+1)×K, the last row the constant; mean and deviation D of the codes.
    """
    codes, factors = codes.double(), factors.double()
    mean, deviation = codes.mean(0), codes.std(0).clamp(min=1e-8)
    x = torch.cat(((codes - mean) / deviation, codes.new_ones(len(codes), 1)), 1)
    penalty = strength * torch.eye(x.shape[1], dtype=x.dtype)
    penalty[-1, -1] = 0
    return torch.linalg.solve(x.T @ x + penalty, x.T @ factors), mean, deviation


def probe_r2(codes: Tensor, factors: Tensor, test_codes: Tensor, test_factors: Tensor, strength: float = 1.0) -> Tensor:
    """How much of each factor's variance a ridge regression explains on other samples: K, at most 1, may be below 0.

    Raises:
        DataError: a factor of the test samples does not vary.
    """
    weights, mean, deviation = ridge(codes, factors, strength)
    x = (test_codes.double() - mean) / deviation
    error = (x @ weights[:-1] + weights[-1] - test_factors.double()).square().sum(0)
    spread = (test_factors.double() - test_factors.double().mean(0)).square().sum(0)
    if bool((spread == 0).any()):
        raise DataError(f"factor {int((spread == 0).nonzero()[0])} does not vary over the test samples")
    return 1 - error / spread


def probe_accuracy(
    codes: Tensor, classes: Tensor, test_codes: Tensor, test_classes: Tensor, strength: float = 1e-2
) -> float:
    """Share of other samples whose class a logistic regression on standardised codes tells, in 0..1.

    Args:
        codes: N×D.
        classes: N int64, from 0.
        test_codes: M×D.
        test_classes: M int64.
        strength: of the penalty on squared weights, in shares of the mean loss.
    """
    mean, deviation = codes.double().mean(0), codes.double().std(0).clamp(min=1e-8)
    x, y = ((values.double() - mean) / deviation for values in (codes, test_codes))
    layer = torch.nn.Linear(x.shape[1], int(max(classes.max(), test_classes.max())) + 1).double()
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(layer(x), classes) + strength * layer.weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return float((layer(y).argmax(1) == test_classes).double().mean())


def dci(codes: Tensor, factors: Tensor, strength: float = 1.0) -> tuple[float, float]:
    """Disentanglement and completeness (Eastwood and Williams, ICLR 2018), with a ridge's weights as importance.

    Returns:
        Both in 0..1: how far each place of the code serves one factor, and each factor is in one place.
    """
    weights, _, _ = ridge(codes, (factors - factors.mean(0)) / factors.std(0).clamp(min=1e-8), strength)
    importance = weights[:-1].abs()
    return _purity(importance), _purity(importance.T)


def _purity(importance: Tensor) -> float:
    """Mean of 1 - entropy of the rows, by their share of the whole."""
    total = importance.sum(1)
    if not float(total.sum()) or importance.shape[1] < 2:
        return 0.0
    share = importance / total.clamp(min=1e-12)[:, None]
    entropy = -(share * share.clamp(min=1e-12).log()).sum(1) / torch.tensor(float(importance.shape[1])).log()
    return float(((1 - entropy) * total).sum() / total.sum())


def mutual_information_gap(codes: Tensor, factors: Tensor, bins: int = 20) -> float:
    """MIG (Chen et al., NeurIPS 2018): the gap between the two places that know most of a factor, over its entropy."""
    places, values = _bins(codes, bins), _bins(factors, bins)
    information = torch.stack([torch.stack([_information(p, v, bins) for p in places.T]) for v in values.T])
    entropy = torch.stack([_entropy(torch.bincount(v, minlength=bins)) for v in values.T])
    top = information.topk(min(2, information.shape[1]), 1).values
    gap = top[:, 0] - (top[:, 1] if top.shape[1] > 1 else 0)
    return float((gap / entropy.clamp(min=1e-12)).mean())


def _bins(values: Tensor, bins: int) -> Tensor:
    low, high = values.amin(0), values.amax(0)
    return ((values - low) / (high - low).clamp(min=1e-12) * bins).long().clamp(max=bins - 1)


def _entropy(counts: Tensor) -> Tensor:
    share = counts.double() / counts.sum()
    return -(share * share.clamp(min=1e-12).log()).sum()


def _information(first: Tensor, second: Tensor, bins: int) -> Tensor:
    joint = torch.bincount(first * bins + second, minlength=bins * bins).view(bins, bins)
    return _entropy(joint.sum(0)) + _entropy(joint.sum(1)) - _entropy(joint.flatten())


def separated_attribute_predictability(codes: Tensor, factors: Tensor) -> float:
    """SAP (Kumar et al., ICLR 2018): the gap of squared correlation between a factor's two best places."""
    x, y = ((v - v.mean(0)) / v.std(0).clamp(min=1e-8) for v in (codes.double(), factors.double()))
    squared = (y.T @ x / (len(x) - 1)).square()
    top = squared.topk(min(2, squared.shape[1]), 1).values
    return float((top[:, 0] - (top[:, 1] if top.shape[1] > 1 else 0)).mean())
