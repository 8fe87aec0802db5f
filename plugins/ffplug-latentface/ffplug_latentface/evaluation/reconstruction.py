"""Figures of reconstructed faces, and of depth where it is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ffplug_face.rendering.depth_map import DepthCamera, depth_normals
from torch import Tensor

from ffplug.evaluation import GatheredMetric
from ffplug_latentface.registry import METRICS


@METRICS.register_module()
class ReconstructionMetric(GatheredMetric):
    """PSNR in dB and mean absolute error (0..1) of ``pred_image`` against the input, as ``psnr`` and ``l1``.

    Args:
        collect_device: see MMEngine's ``BaseMetric``.
        prefix: start of the names in the log.

    Example:
        dict(type="ffplug_latentface.ReconstructionMetric")
    """

    default_prefix = "reconstruction"

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Measure a batch of predicted samples, given as dicts."""
        for image, sample in zip(data_batch["inputs"], data_samples, strict=True):
            error = sample["pred_image"].cpu().double() - image.cpu().double() / 255
            key = sample.get("dataset"), sample.get("sample_id")
            self.results.append((key, float(error.square().mean()), float(error.abs().mean())))

    def compute_metrics(self, results: list[tuple[Any, float, float]]) -> dict[str, float]:
        """Means over all ranks' samples; those that a sampler repeated count once."""
        unique = {key: values for key, *values in results}
        squared, absolute = torch.tensor(list(unique.values()), dtype=torch.float64).T
        psnr = -10 * squared.clamp(min=1e-10).log10()
        return {f"{self.prefix}/psnr": float(psnr.mean()), f"{self.prefix}/l1": float(absolute.mean())}


def depth_errors(found: Tensor, true: Tensor, mask: Tensor) -> tuple[float, float]:
    """Scale-invariant depth error, and mean angle between normals in degrees, as unsup3d measures them.

    Args:
        found: depth S×S.
        true: the same.
        mask: S×S bool, where depth is known; a pixel is taken off its rim.

    Returns:
        sqrt(mean(D²) - mean(D)²) with D the difference of logarithms, and degrees; NaN where nothing remains.
    """
    padded = torch.nn.functional.pad(mask.float()[None, None], (1, 1, 1, 1))
    mask = -torch.nn.functional.max_pool2d(-padded, 3, 1)[0, 0] > 0.5
    if not bool(mask.any()):
        return math.nan, math.nan
    off = (found.double().log() - true.double().log())[mask]
    side = float(((off**2).mean() - off.mean() ** 2).clamp(min=0).sqrt())
    camera = DepthCamera(len(found))
    first, second = (depth_normals(camera.back_project(depth[None].double()))[0] for depth in (found, true))
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=-1)[mask].clamp(-1, 1)
    return side, float(torch.rad2deg(cosine.acos()).mean())
