"""Errors of facial flow besides the end-point error: of its derivatives, and of a background that stands still."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torch.nn import functional

from ffplug.datasets.base import choose
from ffplug.errors import ConfigError, DataError
from ffplug_srflownet.losses import OPERATORS, gradient, gradient_mask
from ffplug_srflownet.registry import METRICS


def facial_sums(predicted: Tensor, true: Tensor, valid: Tensor, face: Tensor, operator: str, border: int) -> Tensor:
    """Sums of the six errors over a pair, and over how many numbers each goes, 2×6 float64.

    Args:
        predicted: flow 2×H×W, pixels.
        true: flow 2×H×W, anything where it is not valid.
        valid: H×W bool.
        face: H×W bool.
        operator: of the derivatives, see :func:`ffplug_srflownet.losses.gradient`.
        border: how far the contour reaches to both sides of the face's edge, pixels.
    """
    predicted = predicted.double()
    predicted = torch.where(predicted.isfinite().all(0), predicted, math.inf)
    true = torch.where(valid, true.double(), 0.0)
    error = (predicted - true).norm(dim=0)
    contour = _near(face, border) & _near(~face, border)
    places = [valid, valid & face, valid & contour, valid & face & ~contour]
    parts = [*((error, place) for place in places), (predicted.norm(dim=0), ~face)]
    steps = gradient((predicted - true)[None], operator)
    masks = gradient_mask((valid & face)[None, None].double(), operator)
    slopes = [
        (step.abs().nan_to_num(nan=math.inf)[0], (mask[0] > 0).expand_as(step[0]))
        for step, mask in zip(steps, masks, strict=True)
    ]
    sums = [(values[where].sum(), where.sum()) for values, where in (*parts, *slopes)]
    totals = torch.stack([torch.stack([torch.as_tensor(x, dtype=torch.float64) for x in pair]) for pair in sums], 1)
    return torch.cat((totals[:, :5], totals[:, 5:].sum(1, keepdim=True)), 1)


def _near(mask: Tensor, distance: int) -> Tensor:
    """Pixels with one of the mask (H×W bool) no farther off than so many rows and columns."""
    grown = functional.max_pool2d(mask[None].float(), 2 * distance + 1, stride=1, padding=distance)
    return grown[0] > 0


@METRICS.register_module()
class FacialFlowMetric(BaseMetric):
    """Errors of facial flow over all pixels of all pairs, logged as ``facial/...``.

    * ``EPE``: end-point error over all valid pixels; ``EPE_face``: over those on the face; ``EPE_contour``: over those
      near its edge, on either side; ``EPE_inside``: over those on the face and away from its edge.
    * ``drift``: mean length of the predicted flow off the face, where SRFlow's backgrounds stand still.
    * ``gradient``: mean of |∂(f̂-f)| on the face, over both derivatives and both components, in pixels per pixel.

    A prediction that is not finite counts as an infinite error. Samples need ``pred_flow`` and ``gt_flow`` (2×H×W,
    pixels) and ``gt_foreground`` (H×W bool); ``gt_valid`` (H×W) leaves pixels out.

    Args:
        operator: of the derivatives, ``"diff"`` or ``"sobel"``.
        mask: which mask of the samples is the face, see :class:`ffplug_srflownet.losses.FlowRegularizer`.
        border: how far the contour reaches to both sides of the face's edge, pixels.
        collect_device: see MMEngine's ``BaseMetric``.
        prefix: start of the names in the log.

    Example:
        dict(type="ffplug_srflownet.FacialFlowMetric")
    """

    default_prefix = "facial"
    figures = ("EPE", "EPE_face", "EPE_contour", "EPE_inside", "drift", "gradient")

    def __init__(self, operator: str = "diff", mask: str = "foreground", border: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operator = choose("operator", operator, OPERATORS)
        self.mask = mask
        if border < 1:
            raise ConfigError(f"FacialFlowMetric: border={border}: expected at least 1 pixel")
        self.border = border

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Measure a batch of predicted samples, given as dicts.

        Raises:
            DataError: a sample has no such mask.
        """
        for sample in data_samples:
            face = sample.get(f"gt_{self.mask}")
            if face is None:
                raise DataError(f"FacialFlowMetric: {sample.get('sample_id')} has no gt_{self.mask}: set `mask`")
            true, valid = sample["gt_flow"], sample.get("gt_valid")
            valid = torch.ones_like(true[0], dtype=torch.bool) if valid is None else valid >= 0.5
            sums = facial_sums(sample["pred_flow"].to(true), true, valid, face > 0.5, self.operator, self.border)
            self.results.append(((sample.get("dataset"), sample.get("sample_id")), sums.tolist()))

    def compute_metrics(self, results: list[tuple[Any, list]]) -> dict[str, float]:
        """The means over the pairs of all ranks; pairs that a sampler repeated count once."""
        pairs = dict(results).values()
        means = {}
        for k, name in enumerate(self.figures):
            count = math.fsum(counts[k] for _, counts in pairs)
            means[name] = math.fsum(totals[k] for totals, _ in pairs) / count if count else math.nan
        return means
