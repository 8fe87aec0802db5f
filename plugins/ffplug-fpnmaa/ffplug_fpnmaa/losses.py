"""Terms of the training loss; each counts only the samples whose label is known.

A term is called with the raw outputs by task (see :class:`~ffplug_fpnmaa.models.MultiTaskAffectHead`) and the samples,
and returns a dict of its values. Means are taken over the known labels of the whole batch, on all ranks together; a
batch without any gives zero, with a gradient of zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed.nn.functional as dist_functional
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from ffplug.errors import ConfigError, DataError
from ffplug_fpnmaa.registry import MODELS

Outputs = Mapping[str, Tensor]


def known(samples: Sequence[Any], field: str, output: Tensor) -> tuple[Tensor, Tensor]:
    """Collect a field of the samples.

    Args:
        samples: N samples or dicts.
        field: its name, such as ``gt_va``.
        output: N×C, what it is compared with: gives the device.

    Returns:
        Positions of the samples that have it, M, and their values, M×... .

    Raises:
        DataError: there is not one sample for each output.
    """
    if len(samples) != len(output):
        raise DataError(f"{len(samples)} samples for {len(output)} outputs: training needs data_samples")
    found = [(index, sample.get(field)) for index, sample in enumerate(samples)]
    found = [(index, value) for index, value in found if value is not None]
    rows = torch.tensor([index for index, _ in found], dtype=torch.long, device=output.device)
    values = torch.stack([value for _, value in found]).to(output.device) if found else output.new_zeros(0)
    return rows, values


def mean_over_ranks(values: Tensor, weights: Tensor, anchor: Tensor) -> Tensor:
    """The weighted mean of values over all ranks, so that DistributedDataParallel's mean of gradients is right.

    Args:
        values: M, of this rank.
        weights: M, at least 0.
        anchor: a tensor of this rank's graph, so that there is a gradient where M = 0.
    """
    total = weights.sum().detach().clone()
    all_reduce(total)
    share = (values * weights).sum() * get_world_size() / total.clamp(min=1e-12)
    return share + 0 * anchor.sum()


class _Term(nn.Module):
    task = ""

    def __init__(self, weight: float = 1.0, name: str | None = None) -> None:
        super().__init__()
        self.weight, self.name = weight, name or f"loss_{self.task}"

    def output(self, outputs: Outputs) -> Tensor:
        if self.task not in outputs:
            have = ", ".join(outputs)
            advice = ": set the head's va_bins=20" if self.task == "va_bins" else ""
            raise ConfigError(f"{type(self).__name__} needs the task {self.task!r}, the head has {have}{advice}")
        return outputs[self.task]


@MODELS.register_module()
class MaskedMSE(_Term):
    """Mean squared error of valence and arousal.

    Args:
        weight: of the term.
        name: under which it is logged.
    """

    task = "va"

    def forward(self, outputs: Outputs, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The term."""
        output = self.output(outputs)
        rows, values = known(samples, "gt_va", output)
        error = (output[rows] - values.reshape(-1, 2)).square().mean(dim=1)
        return {self.name: self.weight * mean_over_ranks(error, torch.ones_like(error), output)}


@MODELS.register_module()
class BinnedCE(_Term):
    """Cross-entropy of valence and arousal told in bins (``va_bins`` of the head), mean of both.

    The truth's bin is the one whose centre is nearest. Put :class:`CCCLoss` of the mean beside it (Deng et al., FG
    2020).

    Args:
        weight: of the term.
        name: under which it is logged.
    """

    task = "va_bins"

    def __init__(self, weight: float = 1.0, name: str = "loss_va_bins") -> None:
        super().__init__(weight, name)

    def forward(self, outputs: Outputs, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The term."""
        output = self.output(outputs)
        rows, values = known(samples, "gt_va", output)
        last = output.shape[2] - 1
        bins = ((values.reshape(-1, 2) + 1) / 2 * last).round().long().clamp(0, last)
        error = F.cross_entropy(output[rows].transpose(1, 2), bins, reduction="none").mean(dim=1)
        return {self.name: self.weight * mean_over_ranks(error, torch.ones_like(error), output)}


@MODELS.register_module()
class MaskedCE(_Term):
    """Cross-entropy of the expression.

    Args:
        weight: of the term.
        class_weights: one for each class, for sets in which some are rare; the term is then a weighted mean.
        label_smoothing: share of the truth that is spread over all classes.
        name: under which it is logged.

    Raises:
        DataError: a label is above the number of classes.
    """

    task = "expr"

    def __init__(
        self,
        weight: float = 1.0,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, name)
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, outputs: Outputs, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The term."""
        output = self.output(outputs)
        rows, labels = known(samples, "gt_expr", output)
        labels = labels.long()
        classes = output.shape[1]
        if len(labels) and int(labels.max()) >= classes:
            raise DataError(f"an expression is class {int(labels.max())}, the head has {classes}: set tasks.expr")
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise ConfigError(f"class_weights: {len(self.class_weights)} for {classes} classes")
        error = F.cross_entropy(output[rows], labels, reduction="none", label_smoothing=self.label_smoothing)
        weights = torch.ones_like(error) if self.class_weights is None else self.class_weights[labels]
        return {self.name: self.weight * mean_over_ranks(error, weights, output)}


@MODELS.register_module()
class MaskedBCE(_Term):
    """Binary cross-entropy of the action units.

    Args:
        weight: of the term.
        pos_weight: one number for each unit (or one for all) by which its positives count more.
        name: under which it is logged.
    """

    task = "au"

    def __init__(
        self, weight: float = 1.0, pos_weight: Sequence[float] | float | None = None, name: str | None = None
    ) -> None:
        super().__init__(weight, name)
        weights = None if pos_weight is None else torch.as_tensor(pos_weight, dtype=torch.float32)
        self.register_buffer("pos_weight", weights, persistent=False)

    def forward(self, outputs: Outputs, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The term."""
        output = self.output(outputs)
        rows, values = known(samples, "gt_au", output)
        units = output.shape[1]
        if self.pos_weight is not None and self.pos_weight.ndim and len(self.pos_weight) != units:
            raise ConfigError(f"pos_weight: {len(self.pos_weight)} for {units} action units")
        values = values.reshape(-1, units) if values.numel() % units == 0 else values
        if values.shape != output[rows].shape:
            raise DataError(f"labels of {values.shape[-1]} action units, the head has {units}: set tasks.au")
        error = F.binary_cross_entropy_with_logits(output[rows], values, reduction="none", pos_weight=self.pos_weight)
        error = error.mean(dim=1)
        return {self.name: self.weight * mean_over_ranks(error, torch.ones_like(error), output)}


def concordance(prediction: Tensor, truth: Tensor, total: Callable[[Tensor], Tensor] = lambda sums: sums) -> Tensor:
    """Lin's concordance correlation coefficient of each column.

    2·cov / (var + var' + (mean - mean')²), with the statistics of the population.

    Args:
        prediction: N×C.
        truth: N×C.
        total: adds up a vector of sums over ranks.

    Returns:
        C; 0 for a column where neither varies and the means agree.
    """
    x, y = prediction.double(), truth.double()
    ones = torch.ones_like(x)
    sums = torch.stack([ones, x, y, x * x, y * y, x * y]).sum(dim=1)
    count, *moments = total(sums).unbind(0)
    x, y, xx, yy, xy = (moment / count.clamp(min=1) for moment in moments)
    covariance = xy - x * y
    spread = (xx - x * x) + (yy - y * y) + (x - y).square()
    return 2 * covariance / spread.clamp(min=1e-8)


@MODELS.register_module()
class CCCLoss(_Term):
    """1 - CCC of valence and of arousal over the batch of all ranks, mean of both.

    It needs some 32 samples or more: a coefficient of few says little.

    Args:
        weight: of the term.
        name: under which it is logged.
    """

    task = "va"

    def __init__(self, weight: float = 1.0, name: str = "loss_ccc") -> None:
        super().__init__(weight, name)

    def forward(self, outputs: Outputs, samples: Sequence[Any]) -> dict[str, Tensor]:
        """The term."""
        output = self.output(outputs)
        rows, values = known(samples, "gt_va", output)
        # The gradient of a sum over ranks reaches every rank's share, and DDP then takes the mean over ranks.
        total = dist_functional.all_reduce if get_world_size() > 1 else (lambda sums: sums)
        coefficient = concordance(output[rows], values.reshape(-1, 2), total).to(output.dtype)
        return {self.name: self.weight * (1 - coefficient).mean() + 0 * output.sum()}


@MODELS.register_module()
class DistillLoss(nn.Module):
    """What teachers say, as softened targets (after Deng et al., FG 2020).

    Expressions by the Kullback-Leibler divergence of distributions softened by a temperature, action units by
    cross-entropy with the teacher's probabilities, valence and arousal by squared error, or, where the head and the
    teacher tell them in bins, by the divergence of the softened distributions, mean of both. A sample whose truth is
    known counts ``with_truth``, another one ``without_truth``; give the terms of the truth the rest as their weight.

    Args:
        tasks: which of ``va``, ``expr`` and ``au``.
        temperature: of the distributions.
        with_truth: weight of a sample whose truth is known.
        without_truth: weight of one whose truth is not.
        scale: multiply by the temperature squared (Hinton et al., 2015), so that gradients keep their size.
        weights: by task, weight of its term.

    Example:
        dict(type="ffplug_fpnmaa.DistillLoss", temperature=1.5)
    """

    def __init__(
        self,
        tasks: Sequence[str] = ("va", "expr", "au"),
        temperature: float = 1.5,
        with_truth: float = 0.4,
        without_truth: float = 1.0,
        scale: bool = False,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ConfigError(f"temperature={temperature}: expected above 0")
        self.tasks, self.temperature, self.scale = tuple(tasks), temperature, scale
        self.with_truth, self.without_truth = with_truth, without_truth
        self.weights = dict(weights or {})

    def forward(self, outputs: Outputs, samples: Sequence[Any]) -> dict[str, Tensor]:
        """One term for each task that the head has."""
        terms = {}
        for task in self.tasks:
            if task not in outputs:
                continue
            binned = task == "va" and "va_bins" in outputs and any("teacher_va_bins" in item for item in samples)
            field = "va_bins" if binned else task
            output = outputs[field]
            rows, said = known(samples, f"teacher_{field}", output)
            if len(rows) and said.shape[1:] != output.shape[1:]:
                found, gives = ("×".join(map(str, x.shape[1:])) for x in (said, output))
                raise DataError(f"teacher_{field}: {found} numbers, the head gives {gives}")
            error = self._error(field, output[rows], said.reshape(-1, *output.shape[1:]))
            there = [samples[index].get(f"gt_{task}") is not None for index in rows.tolist()]
            weights = [self.with_truth if truth else self.without_truth for truth in there]
            scaled = mean_over_ranks(error * error.new_tensor(weights), torch.ones_like(error), output)
            terms[f"loss_teacher_{task}"] = self.weights.get(task, 1.0) * scaled
        return terms

    def _error(self, task: str, output: Tensor, said: Tensor) -> Tensor:
        if task == "va":
            return (output - said).square().mean(dim=1)
        if task == "au":
            return F.binary_cross_entropy_with_logits(output, said, reduction="none").mean(dim=1)
        target = (said.clamp(min=1e-12).log() / self.temperature).log_softmax(dim=-1)
        softened = (output / self.temperature).log_softmax(dim=-1)
        divergence = (target.exp() * (target - softened)).sum(dim=-1)
        if task == "va_bins":
            divergence = divergence.mean(dim=1)
        return divergence * self.temperature**2 if self.scale else divergence


def class_weights(counts: Sequence[int], power: float = 1.0) -> list[float]:
    """Weights by inverse frequency, whose mean over samples is 1; a class that never occurs gets 0.

    Args:
        counts: how often each class occurs.
        power: 0 weighs all alike, 1 makes all classes count the same.
    """
    raw = [count**-power if count else 0.0 for count in counts]
    scale = sum(counts) / (sum(weight * count for weight, count in zip(raw, counts, strict=True)) or 1.0)
    return [scale * weight for weight in raw]
