"""Terms of the training loss: each takes a network's outputs, the true frames and the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.errors import ConfigError, DataError, did_you_mean
from ffplug_ugsp.labels import RATES
from ffplug_ugsp.models.layers import resize
from ffplug_ugsp.registry import MODELS
from ffplug_ugsp.structures import InterpolationSample

Outputs = dict[str, Any]
Samples = Sequence[InterpolationSample]


def laplacian_distance(found: Tensor, wanted: Tensor, levels: int = 5) -> Tensor:
    """Sum over the levels of a Laplacian pyramid of the mean absolute difference; blind to a constant offset.

    The pyramid is linear, so that of the difference is the difference of the two.

    Args:
        found: N×C×H×W, sides in multiples of 2^levels and larger than twice that.
        wanted: the same.
        levels: of the pyramid; what is left below them does not count.

    Raises:
        DataError: the sides do not allow so many levels.
    """
    height, width = found.shape[2:]
    if height % 2**levels or width % 2**levels or min(height, width) < 2 ** (levels + 1):
        raise DataError(
            f"frames of {height}×{width}: a pyramid of {levels} levels needs multiples of {2**levels}, "
            f"at least {2 ** (levels + 1)}"
        )
    x = (found - wanted).flatten(0, 1)[:, None]
    total = x.new_zeros(())
    for _ in range(levels):
        below = _blur(x)[:, :, ::2, ::2]
        spread = x.new_zeros(x.shape)
        spread[:, :, ::2, ::2] = below
        total = total + (x - _blur(spread, 4.0)).abs().mean()
        x = below
    return total


def _blur(x: Tensor, scale: float = 1.0) -> Tensor:
    """Binomial 5×5, its sum ``scale``; frames N×1×H×W are mirrored outside."""
    kernel = x.new_tensor((1, 4, 6, 4, 1)) / 16
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    return F.conv2d(F.conv2d(x, (scale * kernel).view(1, 1, 1, 5)), kernel.view(1, 1, 5, 1))


def census_distance(found: Tensor, wanted: Tensor, side: int) -> Tensor:
    """Mean distance of soft census transforms in windows of this side, each channel by itself.

    Differences d to the centre count as ``d / sqrt(0.81 + d²)``, and differences δ of these as ``δ² / (0.1 + δ²)``; the
    border, which no whole window fits round, counts as equal (Kong et al., IFRNet, equations 7 and 10).

    Args:
        found: N×C×H×W.
        wanted: the same; gets no gradient.
        side: of the window, odd.
    """
    difference = _census(found, side) - _census(wanted.detach(), side)
    square = difference.square()
    return (square / (0.1 + square)).sum() / (found.numel() * side**2)


def _census(x: Tensor, side: int) -> Tensor:
    edge = side // 2
    windows = x.unfold(2, side, 1).unfold(3, side, 1)
    difference = windows - x[:, :, edge:-edge, edge:-edge, None, None]
    return difference * (0.81 + difference.square()).rsqrt()


def robustness(found: Tensor, wanted: Tensor, beta: float = 0.3) -> Tensor:
    """How far to trust a flow: ``exp(-beta · |found - wanted|)``, N×2×H×W -> N×1×H×W, without gradient."""
    return torch.exp(-beta * (found.detach() - wanted).norm(dim=1, keepdim=True))


def adaptive_charbonnier(difference: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``(d² + ε²)^α`` with α = w/2, ε = 10^(-(10w - 1)/3) for a trust w in 0..1 (IFRNet, section 3.3)."""
    return (difference.square() + 10 ** (-2 * (10 * weight - 1) / 3)).pow(weight / 2).mean()


def uncertainty_distance(found: Tensor, wanted: Tensor, scale: Tensor, prior: float = 2.0) -> Tensor:
    """Likelihood of Laplace errors with learned scales e^U, and Jeffreys' prior (Ning et al., NeurIPS 2021)."""
    return (torch.exp(-scale) * (found - wanted).abs()).mean() + prior * scale.mean()


def _get(outputs: Outputs, key: str) -> Any:
    if key not in outputs:
        raise ConfigError(
            f"the network has no output {key!r} for a loss: it has {', '.join(sorted(outputs))}"
            f"{did_you_mean(key, outputs)}"
        )
    return outputs[key]


def _stack(samples: Samples, field: str, what: str) -> Tensor:
    missing = [str(sample.get("sample_id")) for sample in samples if sample.get(field) is None]
    if missing:
        raise DataError(f"no {what} ({field}) for a loss that needs them: {', '.join(missing[:4])}")
    return torch.stack([sample.get(field) for sample in samples])


@MODELS.register_module()
class LaplacianLoss(nn.Module):
    """Distance of frames in a Laplacian pyramid, see :func:`laplacian_distance`.

    Args:
        weight: factor of the term.
        found: name of the output that is compared with the true frame.
        levels: of the pyramid.

    Example:
        dict(type="ffplug_ugsp.LaplacianLoss")
    """

    def __init__(self, weight: float = 1.0, found: str = "frame", levels: int = 5) -> None:
        super().__init__()
        self.weight, self.found, self.levels = weight, found, levels

    def forward(self, outputs: Outputs, target: Tensor, samples: Samples) -> dict[str, Tensor]:
        """Give ``loss_laplacian_FOUND``."""
        distance = laplacian_distance(_get(outputs, self.found), target, self.levels)
        return {f"loss_laplacian_{self.found}": self.weight * distance}


@MODELS.register_module()
class CharbonnierLoss(nn.Module):
    """Mean of ``sqrt(d² + 1e-6)`` between the frame and the true one.

    Args:
        weight: factor of the term.

    Example:
        dict(type="ffplug_ugsp.CharbonnierLoss")
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, outputs: Outputs, target: Tensor, samples: Samples) -> dict[str, Tensor]:
        """Give ``loss_charbonnier``."""
        return {"loss_charbonnier": self.weight * ((outputs["frame"] - target).square() + 1e-6).sqrt().mean()}


@MODELS.register_module()
class CensusLoss(nn.Module):
    """Census distance of the frames' channel means in windows of 7×7, see :func:`census_distance`.

    Args:
        weight: factor of the term.

    Example:
        dict(type="ffplug_ugsp.CensusLoss")
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, outputs: Outputs, target: Tensor, samples: Samples) -> dict[str, Tensor]:
        """Give ``loss_census``."""
        grey, true_grey = (frame.mean(dim=1, keepdim=True) for frame in (outputs["frame"], target))
        return {"loss_census": self.weight * census_distance(grey, true_grey, 7)}


@MODELS.register_module()
class GeometryLoss(nn.Module):
    """Census distance in windows of 3×3 between lists of features, summed over them.

    IFRNet compares the intermediate features with those of the true frame; UGSP's self-contrast compares the pruned
    branch's with those of the branch that is not pruned.

    Args:
        weight: factor of the term.
        found: name of the output that learns.
        wanted: name of the output that it is compared with; gets no gradient from here.

    Example:
        dict(type="ffplug_ugsp.GeometryLoss")
    """

    def __init__(self, weight: float = 0.01, found: str = "features", wanted: str = "target_features") -> None:
        super().__init__()
        self.weight, self.found, self.wanted = weight, found, wanted

    def forward(self, outputs: Outputs, target: Tensor, samples: Samples) -> dict[str, Tensor]:
        """Give ``loss_geometry_WANTED``."""
        pairs = zip(_get(outputs, self.found), _get(outputs, self.wanted), strict=True)
        distance = sum(census_distance(found, wanted, 3) for found, wanted in pairs)
        return {f"loss_geometry_{self.wanted}": self.weight * distance}


@MODELS.register_module()
class FlowDistillationLoss(nn.Module):
    """Flows of the three coarser levels against known flow, more robust where the final flow is far from it (IFRNet).

    Samples need ``gt_flow``: that of a strong flow network, or true flow.

    Args:
        weight: factor of the term.

    Example:
        dict(type="ffplug_ugsp.FlowDistillationLoss")
    """

    def __init__(self, weight: float = 0.01) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, outputs: Outputs, target: Tensor, samples: Samples) -> dict[str, Tensor]:
        """Give ``loss_flow``."""
        known = _stack(samples, "gt_flow", "known flow")
        *coarse, final = outputs["flows"][-4:]
        total = final.new_zeros(())
        for part in (slice(0, 2), slice(2, 4)):
            weight = robustness(final[:, part], known[:, part])
            for place, flow in enumerate(coarse):
                factor = 2 ** (len(coarse) - place)
                difference = factor * resize(flow[:, part], factor) - known[:, part]
                total = total + adaptive_charbonnier(difference, weight)
        return {"loss_flow": self.weight * total}


@MODELS.register_module()
class TeacherLoss(nn.Module):
    """A teacher that sees the true frame learns, and its flow is learned where its frame is better (RIFE, section 3.4).

    Args:
        teacher: factor of the teacher's own distance in a Laplacian pyramid.
        distill: factor of the mean distance of flows.
        margin: by how much the teacher's frame must be better at a pixel.

    Example:
        dict(type="ffplug_ugsp.TeacherLoss")
    """

    def __init__(self, teacher: float = 1.0, distill: float = 0.01, margin: float = 0.01) -> None:
        super().__init__()
        self.teacher, self.distill, self.margin = teacher, distill, margin

    def forward(self, outputs: Outputs, target: Tensor, samples: Samples) -> dict[str, Tensor]:
        """Give ``loss_teacher`` and ``loss_distill``."""
        taught, frame = outputs["teacher_flow"].detach(), outputs["teacher_frame"]
        error = (frame.detach() - target).abs().mean(dim=1, keepdim=True) + self.margin
        total = error.new_zeros(())
        for flow, merged in zip(outputs["full_flows"], outputs["merged"], strict=True):
            worse = ((merged.detach() - target).abs().mean(dim=1, keepdim=True) > error).to(error.dtype)
            # The root has no slope at 0.
            total = total + (((taught - flow).square().mean(dim=1, keepdim=True) + 1e-12).sqrt() * worse).mean()
        return {
            "loss_teacher": self.teacher * laplacian_distance(frame, target),
            "loss_distill": self.distill * total,
        }


@MODELS.register_module()
class SparsityLoss(nn.Module):
    """Distance of a pruned network's activity from its budget (UGSP, section 3.3).

    Activity is the mean of the masks over the channels that they let through, with ones for the dense level.

    Args:
        target: the budget, in 0..1; at 0.35 a network of published size needs about 48 % of the dense operations.
        weight: factor of the term.
        scale: a second factor, which a schedule raises from 0.

    Example:
        dict(type="ffplug_ugsp.SparsityLoss")
    """

    def __init__(self, target: float = 0.35, weight: float = 0.1, scale: float = 0.1) -> None:
        super().__init__()
        if not 0 <= target <= 1:
            raise ConfigError(f"target={target}: expected 0..1")
        self.target, self.weight, self.scale = target, weight, scale

    def forward(self, outputs: Outputs, target: Tensor, samples: Samples) -> dict[str, Tensor]:
        """Give ``loss_sparsity``, and ``activity`` for the log."""
        activity = _get(outputs, "activity")
        distance = (activity - self.target).abs()
        return {"loss_sparsity": self.scale * self.weight * distance, "activity": activity.detach()}


@MODELS.register_module()
class LabelLoss(nn.Module):
    """Mean distance of the masks from labels, which tell where the frame is hard (UGSP, section 3.3).

    Args:
        weight: factor of the term.
        scale: a second factor, which a schedule raises from 0.
        source: ``samples``: their ``gt_labels``, as :mod:`ffplug_ugsp.labels` makes them; or ``error``: where the
            auxiliary branch errs most in the batch at hand, which needs no first phase.
        rates: shares of pixels that labels from errors keep at 1/8, 1/4 and 1/2 of the size.

    Raises:
        ConfigError: no such source, or shares out of range.

    Example:
        dict(type="ffplug_ugsp.LabelLoss")
    """

    def __init__(
        self, weight: float = 0.5, scale: float = 0.1, source: str = "samples", rates: Sequence[float] = RATES
    ) -> None:
        super().__init__()
        if source not in ("samples", "error"):
            raise ConfigError(f"source={source!r}: expected 'samples' or 'error'")
        if len(rates) != 3 or not all(0 <= rate <= 1 for rate in rates):
            raise ConfigError(f"rates={rates}: expected three shares in 0..1")
        self.weight, self.scale, self.source, self.rates = weight, scale, source, rates

    def forward(self, outputs: Outputs, target: Tensor, samples: Samples) -> dict[str, Tensor]:
        """Give ``loss_label``."""
        masks = _get(outputs, "masks")
        if self.source == "samples":
            given = _stack(samples, "gt_labels", "labels")
            steps = [given.shape[2] // mask.shape[2] for mask in masks]
            labels = [given[:, place : place + 1, ::step, ::step] for place, step in enumerate(steps)]
        else:
            error = (_get(outputs, "auxiliary_frame").detach() - target).abs().mean(dim=1, keepdim=True)
            labels = [self._hard(error, mask, rate) for mask, rate in zip(masks, self.rates, strict=True)]
        total = sum((label - mask).abs().mean() for label, mask in zip(labels, masks, strict=True))
        return {"loss_label": self.scale * self.weight * total / 10}

    def _hard(self, error: Tensor, mask: Tensor, rate: float) -> Tensor:
        """Cells N×1×h×w with the greatest errors of a batch, as many as the rate allows."""
        greatest = F.max_pool2d(error, error.shape[2] // mask.shape[2])
        chosen = greatest.flatten().topk(round(rate * greatest.numel())).indices
        return torch.zeros_like(greatest.flatten()).index_fill(0, chosen, 1.0).view(greatest.shape)


@MODELS.register_module()
class UncertaintyLoss(nn.Module):
    """Frames of several levels, each with its uncertainty, see :func:`uncertainty_distance`.

    Errors count in grey levels: uncertainties are above -1, so errors below e^-1 cannot be told from each other.

    Args:
        weight: factor of the term.

    Example:
        dict(type="ffplug_ugsp.UncertaintyLoss")
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, outputs: Outputs, target: Tensor, samples: Samples) -> dict[str, Tensor]:
        """Give ``loss_uncertainty``."""
        pairs = zip(_get(outputs, "frames"), _get(outputs, "uncertainties"), strict=True)
        distance = sum(uncertainty_distance(255 * frame, 255 * target, scale) for frame, scale in pairs)
        return {"loss_uncertainty": self.weight * distance}
