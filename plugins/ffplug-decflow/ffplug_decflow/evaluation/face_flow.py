"""Errors of facial, head and expression flow: FacialFlowNet's published figures, and means within the face."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ffplug.errors import DataError
from ffplug.evaluation import GatheredMetric, epe_map
from ffplug.evaluation.flow_metrics import metric_prefix
from ffplug.evaluation.flow_statistics import flow_array
from ffplug_decflow.registry import METRICS

FLOWS = ("facial", "head", "expression")
THRESHOLDS = (1, 3, 5)
MAGNITUDES = {"s0-0.5": (0.0, 0.5), "s0.5-2": (0.5, 2.0), "s2+": (2.0, math.inf)}
"""Half-open ranges of the length of the true expression flow in pixels."""


@METRICS.register_module()
class FaceFlowMetric(GatheredMetric):
    """End-point errors of the three flows, pair by pair, then averaged over the pairs.

    For each of ``facial``, ``head`` and ``expression`` flow that samples have, as ``ffn/facial/EPE`` and so on:

    * ``EPE``, ``1px``, ``3px``, ``5px``: mean error, and shares (0..1) of pixels whose error is below 1, 3 and 5 px,
      over the valid pixels of the face: sums over the mask by its size.
    * ``EPE_s0-0.5``, ``EPE_s0.5-2``, ``EPE_s2+``: the same by the length of the true expression flow;
      ``EPE_occluded``: where frame 1's point is not seen in frame 2, if samples say so. Pairs without such a pixel are
      left out of these means.
    * ``angle``: mean angle in degrees between predicted and true flow as the vectors (u, v, 1).
    * ``ffn_epe``, ``ffn_1px``, ``ffn_3px``, ``ffn_5px``: as DecFlow's published code has them, for comparison: the
      errors of *all* pixels, and the number of all pixels below the threshold, by the size of the mask. So errors of
      the background count, and a share can be above 1.

    A sample without a mask counts as all face. A pixel of the mask whose truth is not valid counts in the published
    figures only. A prediction that is not finite is an infinite error. A pair counts once, whatever a sampler repeats.

    Args:
        prefix: start of the names; default the data set's name in lower case.
        collect_device: kept for MMEngine's interface.

    Raises:
        DataError: a sample has no name, no prediction, an empty mask, or shapes that do not agree.

    Example:
        dict(type="ffplug_decflow.FaceFlowMetric")
    """

    def __init__(self, prefix: str | None = None, collect_device: str = "cpu") -> None:
        super().__init__(collect_device=collect_device, prefix=prefix or "ffn")
        self.prefix = prefix

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Measure a batch.

        Args:
            data_batch: not used.
            data_samples: the model's predictions with the ground truth, as dicts.
        """
        for sample in data_samples:
            name = sample.get("sample_id") or sample.get("img1_path")
            if not name:
                raise DataError("a sample has neither sample_id nor img1_path, so repeats could not be told apart")
            prefix = self.prefix or metric_prefix(sample.get("dataset") or "ffn")
            self.results.append((prefix, str(name), measure_face_pair(sample)))

    def compute_metrics(self, results: list[tuple[str, str, dict[str, float]]]) -> dict[str, float]:
        """Means over the pairs, in the order of their names."""
        unique = {(prefix, name): figures for prefix, name, figures in results}
        columns: dict[str, list[float]] = {}
        for (prefix, _), figures in sorted(unique.items()):
            for key, value in figures.items():
                columns.setdefault(f"{prefix}/{key}", []).append(value)
        return {key: math.fsum(values) / len(values) for key, values in columns.items()}


def measure_face_pair(sample: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one pair by name, such as ``facial/EPE``; see :class:`FaceFlowMetric`.

    Args:
        sample: a :class:`~ffplug_decflow.structures.FaceFlowSample` or its dict.

    Raises:
        DataError: it has no prediction or no truth, its mask is empty, or shapes do not agree.
    """
    name = sample.get("sample_id") or sample.get("img1_path")
    truths = {flow: _field(sample, "gt", flow) for flow in FLOWS}
    measured = {flow: _field(sample, "pred", flow) for flow in FLOWS if truths[flow] is not None}
    measured = {flow: value for flow, value in measured.items() if value is not None}
    if not measured:
        raise DataError(f"{name}: no predicted flow has a true one beside it; evaluate a split with ground truth")
    shape = tuple(truths["facial" if truths["facial"] is not None else next(iter(measured))].shape[-2:])
    mask = _mask(sample, "gt_mask", shape)
    if not mask.any():
        raise DataError(f"{name}: the mask of the face is empty, so nothing can be measured in it")
    size = int(mask.sum())
    speed = None
    if truths["expression"] is not None:
        speed = np.linalg.norm(flow_array(truths["expression"]).astype(np.float64), axis=2)
    figures: dict[str, float] = {}
    for flow, predicted in measured.items():
        truth = truths[flow]
        try:
            error = epe_map(predicted, truth)
        except DataError as problem:
            raise DataError(f"{name}: {flow} flow: {problem}") from problem
        known = ~np.isnan(error)
        inside = mask & known & _mask(sample, _valid_key(flow), shape)
        regions = {"": inside}
        if speed is not None:
            moving = inside & _mask(sample, "gt_expression_valid", shape)
            regions |= {f"_{k}": moving & (speed >= low) & (speed < high) for k, (low, high) in MAGNITUDES.items()}
        if sample.get("gt_occlusion") is not None:
            regions["_occluded"] = inside & _mask(sample, "gt_occlusion", shape)
        for region, where in regions.items():
            if where.any():
                figures[f"{flow}/EPE{region}"] = float(error[where].mean())
        for threshold in THRESHOLDS:
            if inside.any():
                figures[f"{flow}/{threshold}px"] = float((error[inside] < threshold).mean())
            figures[f"{flow}/ffn_{threshold}px"] = float((error[known] < threshold).sum() / size)
        figures[f"{flow}/ffn_epe"] = float(error[known].sum() / size)
        angle = _angles(flow_array(predicted)[inside], flow_array(truth)[inside])
        if angle.size:
            figures[f"{flow}/angle"] = float(angle.mean())
    return figures


def _field(sample: Mapping[str, Any], kind: str, flow: str) -> Any:
    return sample.get(f"{kind}_flow" if flow == "facial" else f"{kind}_{flow}_flow")


def _valid_key(flow: str) -> str:
    return "gt_valid" if flow == "facial" else f"gt_{flow}_valid"


def _mask(sample: Mapping[str, Any], key: str, shape: tuple[int, int]) -> np.ndarray:
    """A mask of the sample as bool H×W; all True where it has none."""
    mask = sample.get(key)
    if mask is None:
        return np.ones(shape, bool)
    array = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask) > 0
    if array.shape != shape:
        raise DataError(f"{key}: expected {shape[0]}×{shape[1]} as the true flow, found {array.shape}")
    return array


def _angles(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Angles in degrees between (u, v, 1) of N×2 flows, by the arc tangent, which is exact for small ones too."""
    first, second = (
        np.concatenate([flow.astype(np.float64), np.ones((len(flow), 1))], 1) for flow in (predicted, true)
    )
    across = np.linalg.norm(np.cross(first, second), axis=1)
    return np.degrees(np.arctan2(across, (first * second).sum(1)))
