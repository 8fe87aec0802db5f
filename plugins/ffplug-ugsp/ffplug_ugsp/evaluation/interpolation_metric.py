"""What papers on frame interpolation publish: PSNR, three kinds of SSIM that differ, and the interpolation error."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.datasets.base import choose_all
from ffplug.errors import DataError
from ffplug.evaluation import FrameMetric, FrameRecord, as_levels
from ffplug_ugsp.registry import METRICS

FIGURES = ("SSIM_volume", "SSIM_uniform", "IE", "IE_rms")
_FRAMES = ("gt_frame", "pred_frame", "base_frame")


def _gaussian(like: Tensor) -> Tensor:
    offsets = torch.arange(-5, 6, dtype=like.dtype, device=like.device)
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    return window / window.sum()


def _blur_volume(stack: Tensor) -> Tensor:
    """Blur N×3×H×W over columns, rows and channels, with copies of the edges beyond them."""
    window = _gaussian(stack)
    planes = F.pad(stack.flatten(0, 1)[:, None], (5, 5, 5, 5), mode="replicate")
    planes = F.conv2d(F.conv2d(planes, window[None, None, :, None]), window[None, None, None])[:, 0]
    # Of eleven channels round one all but three are copies of the first or the last.
    share = stack.new_zeros(3, 3)
    for channel in range(3):
        for offset in range(-5, 6):
            share[channel, min(max(channel + offset, 0), 2)] += window[offset + 5]
    return torch.einsum("cd,ndhw->nchw", share, planes.unflatten(0, stack.shape[:2]))


def ssim_volume(prediction: Tensor, target: Tensor) -> float:
    """Structural similarity of colour pictures taken as volumes: what RIFE, IFRNet, EMA-VFI and UGSP publish.

    Gaussian windows of 11×11×11 with deviation 1.5 over rows, columns and the three channels, with copies of the edges
    beyond them; the order of the channels counts, but not its direction.

    Args:
        prediction: 3×H×W in 0..255.
        target: the same.
    """
    return _similarity(prediction, target, _blur_volume, 1.0)


def ssim_uniform(prediction: Tensor, target: Tensor) -> float:
    """Structural similarity with windows of 7×7 equal weights, as scikit-image's default: SoftSplat's on Xiph.

    Args:
        prediction: 3×H×W in 0..255, sides of at least 7.
        target: the same.

    Raises:
        DataError: the frames are smaller than a window.
    """
    if min(prediction.shape[1:]) < 7:
        raise DataError(f"SSIM of frames of {tuple(prediction.shape[1:])} pixels: expected at least 7×7")
    # Variances of samples, not of populations.
    return _similarity(prediction, target, lambda stack: F.avg_pool2d(stack, 7, 1), 49 / 48)


def _similarity(prediction: Tensor, target: Tensor, blur: Any, unbiased: float) -> float:
    one, other = prediction.double() / 255, target.double() / 255
    mean, true_mean, square, true_square, product = blur(torch.stack([one, other, one**2, other**2, one * other]))
    first, second = 0.01**2, 0.03**2
    covariance = 2 * unbiased * (product - mean * true_mean) + second
    variances = unbiased * (square - mean**2 + true_square - true_mean**2) + second
    return float(((2 * mean * true_mean + first) * covariance / ((mean**2 + true_mean**2 + first) * variances)).mean())


@METRICS.register_module()
class InterpolationMetric(FrameMetric):
    """The core's figures of frames, and those of papers on interpolation beside them.

    ``SSIM_volume`` is the one of nearly all tables, see :func:`ssim_volume`; ``SSIM_uniform``, see
    :func:`ssim_uniform`; ``IE`` is the mean absolute difference in grey levels, ``IE_rms`` Middlebury's own, the root
    of the mean squared one. ``SSIM`` is the core's, of plain pictures; never compare one kind with another. ``LPIPS``
    comes where its released weights are. Each also has its ``_base``, of the mean of the two frames.

    RIFE, UGSP and EMA-VFI round to whole levels first (``quantise="round"``); IFRNet, and EMA-VFI on SNU-FILM, do not
    (``"none"``). Only what ``ori_shape`` tells counts, so that frames may lie on a larger canvas.

    Args:
        figures: which of the first four there are; None takes all.
        lpips: network of LPIPS, or None, see :class:`ffplug.evaluation.FrameMetric`.
        **kwargs: see :class:`ffplug.evaluation.FrameMetric`.

    Raises:
        ConfigError: an argument is none of those named.

    Example:
        dict(type="ffplug_ugsp.InterpolationMetric")
    """

    def __init__(self, figures: str | Sequence[str] | None = None, lpips: str | None = "alex", **kwargs: Any) -> None:
        super().__init__(lpips=lpips, **kwargs)
        self.figures = FIGURES if figures is None else choose_all("figures", figures, FIGURES)

    def measure(self, sample: Mapping[str, Any]) -> FrameRecord:
        """Return what one produced frame contributes."""
        sample = _cropped(sample)
        record = super().measure(sample)
        levels = {key: as_levels(sample[key], self.quantise) for key in _FRAMES if sample.get(key) is not None}
        figures = dict(record.figures)
        for key, ending in (("pred_frame", ""), ("base_frame", "_base")):
            if key in levels:
                difference = levels[key] - levels["gt_frame"]
                computed = {
                    "SSIM_volume": lambda key=key: ssim_volume(levels[key], levels["gt_frame"]),
                    "SSIM_uniform": lambda key=key: ssim_uniform(levels[key], levels["gt_frame"]),
                    "IE": lambda difference=difference: float(difference.abs().mean()),
                    "IE_rms": lambda difference=difference: math.sqrt(float(difference.square().mean())),
                }
                figures |= {f"{name}{ending}": computed[name]() for name in self.figures}
        return dataclasses.replace(record, figures=figures)


def _cropped(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A sample's fields, without what lies beyond its original size."""
    fields = {key: sample.get(key) for key in sample.keys()}  # noqa: SIM118
    fields |= {key: sample.get(key) for key in ("dataset", "sample_id", "kind", "procedural", "ori_shape")}
    shape = fields["ori_shape"]
    if shape is None:
        return fields
    return {
        key: value[..., : shape[0], : shape[1]] if isinstance(value, Tensor) else value for key, value in fields.items()
    }
