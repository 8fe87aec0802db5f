"""Figures of reconstructed faces, and of depth where it is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ffplug_face.rendering.depth_map import DepthCamera, depth_normals
from torch import Tensor

from ffplug.evaluation import GatheredMetric, lpips, ssim
from ffplug_latentface.registry import METRICS


@METRICS.register_module()
class ReconstructionMetric(GatheredMetric):
    """How near ``pred_image`` comes to the input; where ``pred_mask`` has nothing, the input is put in its place.

    Logged are means over pictures: ``reconstruction/psnr`` in dB, ``l1`` (0..1), ``ssim``, and ``lpips`` if it is asked
    for.

    Args:
        lpips: ``alex`` or ``vgg``, whose released weights lie on this machine (see ``ffplug weights``), or None.
        collect_device: see MMEngine's ``BaseMetric``.
        prefix: start of the names in the log.

    Raises:
        CheckpointError: weights of LPIPS are missing.

    Example:
        dict(type="ffplug_latentface.ReconstructionMetric")
    """

    default_prefix = "reconstruction"

    def __init__(self, lpips: str | None = None, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.lpips = lpips

    def process(self, data_batch: Mapping[str, Any], data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Measure a batch of predicted samples, given as dicts."""
        for image, sample in zip(data_batch["inputs"], data_samples, strict=True):
            true, found = image.cpu().double(), 255 * sample["pred_image"].cpu().double()
            if sample.get("pred_mask") is not None:
                found = torch.where(sample["pred_mask"].cpu(), found, true)
            figures = {
                "psnr": -10 * math.log10(max(1e-10, float(((found - true) / 255).square().mean()))),
                "l1": float((found - true).abs().mean()) / 255,
                "ssim": ssim(found, true),
            }
            if self.lpips is not None:
                figures["lpips"] = lpips(found, true, self.lpips)
            self.results.append(((sample.get("dataset"), sample.get("sample_id")), figures))

    def compute_metrics(self, results: list[tuple[Any, dict[str, float]]]) -> dict[str, float]:
        """Means over all ranks' samples; those that a sampler repeated count once."""
        unique = list(dict(results).values())
        return {f"{self.prefix}/{name}": sum(each[name] for each in unique) / len(unique) for name in unique[0]}


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
