"""Figures of produced frames: PSNR, SSIM and LPIPS, and the metric of a run."""

from __future__ import annotations

import functools
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from ffplug.apis.weights import find_file
from ffplug.errors import ConfigError, DataError
from ffplug.evaluation.flow_metrics import metric_prefix
from ffplug.evaluation.gathered import GatheredMetric
from ffplug.models.perceptual import LPIPS, lpips_files, missing_files
from ffplug.registry import METRICS
from ffplug.structures import shown_name

QUANTISATIONS = ("none", "round", "truncate")
COLOURS = ("rgb", "y")
REGION = "region_"
_LUMA = (65.481, 128.553, 24.966)
_LEAST = 1e-10


def as_levels(frame: Tensor, quantise: str = "round", colour: str = "rgb") -> Tensor:
    """Bring a frame to the levels 0..255 that figures are computed on.

    Args:
        frame: 3×H×W RGB, cut to 0..1.
        quantise: ``none``, ``round`` or ``truncate`` to whole levels.
        colour: ``rgb``, or ``y``: luma of ITU-R BT.601 in the range of a studio (16..235), as super-resolution papers
            take it.

    Returns:
        C×H×W float64.
    """
    levels = frame.detach().double().clamp(0, 1) * 255
    levels = {"none": lambda x: x, "round": torch.round, "truncate": torch.floor}[quantise](levels)
    if colour == "rgb":
        return levels
    weights = levels.new_tensor(_LUMA) / 255
    return (weights[:, None, None] * levels).sum(dim=0, keepdim=True) + 16


def squared_error(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> float | None:
    """Mean squared error in squared levels of two frames C×H×W; weighed by H×W, None where nothing counts."""
    error = (prediction - target).square().mean(dim=0)
    if weight is None:
        return float(error.mean())
    total = float(weight.double().sum())
    return float((error * weight).sum()) / total if total > 0 else None


def psnr(error: float) -> float:
    """Peak signal-to-noise ratio in dB of a squared error in levels of 255; at most 147, that of equal frames."""
    return 10 * math.log10(255**2 / max(error, _LEAST))


def ssim_map(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity at each pixel that a whole window fits round (Wang et al., IEEE TIP 2004).

    Args:
        prediction: C×H×W in 0..255, sides of at least 11.
        target: the same.

    Returns:
        C×(H-10)×(W-10): Gaussian windows of 11×11 with deviation 1.5, C1 = (0.01·255)², C2 = (0.03·255)².

    Raises:
        DataError: the frames are smaller than a window.
    """
    if min(prediction.shape[1:]) < 11:
        raise DataError(f"SSIM of frames of {tuple(prediction.shape[1:])} pixels: expected at least 11×11")
    offsets = torch.arange(-5, 6, dtype=torch.float64, device=prediction.device)
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = window / window.sum()
    stack = torch.stack([prediction, target, prediction**2, target**2, prediction * target]).double()
    blurred = F.conv2d(stack.flatten(0, 1)[:, None], window[None, None, :, None])
    blurred = F.conv2d(blurred, window[None, None, None])[:, 0].unflatten(0, stack.shape[:2])
    mean, true_mean, square, true_square, product = blurred
    first, second = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance = 2 * (product - mean * true_mean) + second
    variances = square - mean**2 + true_square - true_mean**2 + second
    return (2 * mean * true_mean + first) * covariance / ((mean**2 + true_mean**2 + first) * variances)


def ssim(prediction: Tensor, target: Tensor) -> float:
    """Mean structural similarity of two frames, see :func:`ssim_map`."""
    return float(ssim_map(prediction, target).mean())


def lpips(prediction: Tensor, target: Tensor, network: str | LPIPS = "alex") -> float:
    """Learned perceptual distance of two frames, see :class:`ffplug.models.perceptual.LPIPS`; 0 for equal ones.

    Args:
        prediction: 3×H×W RGB in 0..255.
        target: the same.
        network: ``alex`` or ``vgg``, whose released weights lie on this machine, or one with weights from elsewhere.

    Raises:
        CheckpointError: they do not, or a file is not theirs.
        DataError: the frames are smaller than the network allows.
    """
    if not isinstance(network, LPIPS):
        network = _lpips(network, *(find_file(name)[0] for name in lpips_files(network)))
    with torch.inference_mode():
        return float(network.to(prediction.device)(*(frame[None].float() / 255 for frame in (prediction, target))))


@functools.lru_cache(maxsize=2)
def _lpips(network: str, backbone: Path, heads: Path) -> LPIPS:
    return LPIPS(network, backbone, heads)


@dataclass(frozen=True)
class FrameRecord:
    """What one frame contributes: where it comes from, and its figures by name."""

    dataset: str
    sample_id: str
    kind: str
    procedural: bool
    figures: dict[str, float]

    @property
    def key(self) -> tuple[str, str]:
        """What makes a frame unique over all data sets of the run."""
        return self.dataset, self.sample_id


@METRICS.register_module()
class FrameMetric(GatheredMetric):
    """PSNR, SSIM and LPIPS of produced frames against the true ones, the same on any number of ranks.

    Logged per data set, each a mean over frames: ``PSNR``, ``SSIM`` and ``LPIPS``; ``PSNR_base`` and so on of the
    samples' ``base_frame``; ``PSNR_REGION``, ``SSIM_REGION`` and ``PSNR_REGION_base`` for each field ``region_REGION``
    (weights H×W; frames without such pixels do not count); and all of them under ``KIND/`` for each ``kind`` that
    samples name. The key ``frames`` counts them. Frames that a sampler repeated are dropped.

    Args:
        prefix: start of the names, with everything pooled. Default: each data set by itself, under its own name in
            lower case.
        quantise: ``none``, ``round`` or ``truncate``, see :func:`as_levels`.
        colour: ``rgb`` or ``y``; LPIPS is of colours always.
        lpips: ``alex`` or ``vgg``, the network of LPIPS; where its released weights are not on this machine, the figure
            is left out and a warning says so. None leaves it out.
        out_file: JSON to write, with every frame's figures; None writes none.
        collect_device: kept for MMEngine's interface.

    Raises:
        ConfigError: an argument is none of the above.
        DataError: a sample has no prediction, truth or name, or their sizes differ.
    """

    def __init__(
        self,
        prefix: str | None = None,
        quantise: str = "round",
        colour: str = "rgb",
        lpips: str | None = None,
        out_file: str | os.PathLike | None = None,
        collect_device: str = "cpu",
    ) -> None:
        if quantise not in QUANTISATIONS or colour not in COLOURS:
            raise ConfigError(
                f"quantise={quantise!r}, colour={colour!r}: expected one of {', '.join(QUANTISATIONS)}, and of "
                f"{', '.join(COLOURS)}"
            )
        super().__init__(collect_device=collect_device, prefix=prefix or "frames")
        self.prefix = prefix
        self.quantise, self.colour = quantise, colour
        self.lpips = lpips
        missing = [] if lpips is None else missing_files(lpips)
        if missing:
            self.lpips = None
            print_log(
                f"LPIPS is left out: {' and '.join(missing)} not on this machine (`ffplug weights pull "
                f"{' '.join(missing)}`)",
                logger="current",
                level=logging.WARNING,
            )
        self.out_file = out_file

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Measure a batch of predictions with the ground truth, samples or their dicts."""
        self.results.extend(self.measure(sample) for sample in data_samples)

    def measure(self, sample: Mapping[str, Any]) -> FrameRecord:
        """Return what one produced frame contributes."""
        name = sample.get("sample_id")
        if not name:
            raise DataError("a sample has no sample_id, so that repeated frames could not be told apart")
        frames = {key: sample.get(key) for key in ("gt_frame", "pred_frame", "base_frame")}
        for key in ("gt_frame", "pred_frame"):
            if frames[key] is None:
                raise DataError(f"{name}: the sample has no {key}")
        sizes = {key: tuple(frame.shape) for key, frame in frames.items() if frame is not None}
        if len(set(sizes.values())) > 1:
            raise DataError(f"{name}: frames of different sizes: {sizes}")
        levels = {
            key: as_levels(frame, self.quantise, self.colour) for key, frame in frames.items() if frame is not None
        }
        regions = {key.removeprefix(REGION): sample.get(key) for key in sample.keys() if key.startswith(REGION)}  # noqa: SIM118
        figures: dict[str, float] = {}
        for key, ending in (("pred_frame", ""), ("base_frame", "_base")):
            if key not in levels:
                continue
            if self.lpips is not None:
                colours = (as_levels(frames[name], self.quantise) for name in (key, "gt_frame"))
                figures[f"LPIPS{ending}"] = lpips(*colours, self.lpips)
            similarity = ssim_map(levels[key], levels["gt_frame"]).mean(dim=0)
            for region, weight in {"": None, **regions}.items():
                middle = f"_{region}" if region else ""
                error = squared_error(levels[key], levels["gt_frame"], weight)
                if error is None:
                    continue
                figures[f"PSNR{middle}{ending}"] = psnr(error)
                inner = None if weight is None else weight[5:-5, 5:-5].double()
                if inner is None:
                    figures[f"SSIM{middle}{ending}"] = float(similarity.mean())
                elif inner.sum() > 0:
                    figures[f"SSIM{middle}{ending}"] = float((similarity * inner).sum() / inner.sum())
        procedural = bool(sample.get("procedural"))
        return FrameRecord(sample.get("dataset") or "frames", str(name), sample.get("kind") or "", procedural, figures)

    def compute_metrics(self, results: list[FrameRecord]) -> dict[str, float]:
        """Return the figures of these frames in any order; also log which data they are of, and write the JSON."""
        unique = {record.key: record for record in results}
        groups: dict[str, list[FrameRecord]] = {}
        for key in sorted(unique):
            groups.setdefault(self.prefix or metric_prefix(key[0]), []).append(unique[key])
        logged: dict[str, float] = {}
        for name, records in groups.items():
            source = shown_name(records[0].dataset, any(record.procedural for record in records))
            print_log(f"{source}: {len(records)} frames", logger="current")
            kinds = sorted({record.kind for record in records} - {""})
            for kind in ("", *kinds):
                chosen = [record for record in records if kind in ("", record.kind)]
                place = f"{name}/{kind}/" if kind else f"{name}/"
                logged |= {f"{place}{figure}": value for figure, value in _means(chosen).items()}
                logged[f"{place}frames"] = len(chosen)
        if self.out_file is not None:
            content = {
                "/".join(key): {"kind": r.kind, "procedural": r.procedural, **r.figures} for key, r in unique.items()
            }
            Path(self.out_file).write_text(json.dumps(content, indent=1), encoding="utf-8")
        return logged


def _means(records: Sequence[FrameRecord]) -> dict[str, float]:
    """The mean of each figure over the frames that have it."""
    values: dict[str, list[float]] = {}
    for record in records:
        for figure, value in record.figures.items():
            values.setdefault(figure, []).append(value)
    return {figure: math.fsum(found) / len(found) for figure, found in values.items()}
