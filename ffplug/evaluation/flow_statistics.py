"""The exact definitions of the optical-flow figures, as sums over pixels that can be pooled in any order.

Everything is computed in float64 from the float32 flows. A figure is never computed from other figures: each pair
gives one :class:`PixelSums` per region (all, matched, by speed, ...), those are added, and the figures are read from
the total. So pooling over pairs, sequences or ranks is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ffplug.errors import DataError

SPEED_CLASSES = {"s0-10": (0.0, 10.0), "s10-40": (10.0, 40.0), "s40+": (40.0, np.inf)}
"""Half-open ranges of the true speed ``|gt|`` in pixels per frame (MPI Sintel)."""

DISTANCE_CLASSES = {"d0-10": (0.0, 10.0), "d10-60": (10.0, 60.0), "d60-140": (60.0, 140.0)}
"""Half-open ranges of the distance to the nearest occlusion boundary in pixels (MPI Sintel)."""

SPLITS = {
    "noc": ("noc", None),
    "foreground": ("fg", "bg"),
    "detail": ("high_detail", "low_detail"),
    "nonrigid": ("nonrigid", "rigid"),
    "sky": ("sky", "not_sky"),
}
"""Regions that a mask makes: where it is set, and where it is not (None = no region)."""

_WAUC_STEPS = 100
_WAUC_THRESHOLDS = np.arange(1, _WAUC_STEPS + 1) / 20.0
_WAUC_FULL = _WAUC_STEPS * (_WAUC_STEPS + 1)


@dataclass(frozen=True)
class PixelSums:
    """What one region of one pair (or of many, added) contributes to the figures.

    Attributes:
        pixels: number of evaluated pixels.
        error: sum of the end-point errors in pixels.
        zero_error: sum of the end-point errors of zero flow, i.e. of the true speeds.
        below_1: pixels with an error below 1 px; likewise ``below_3`` and ``below_5``.
        fl: pixels with an error above 3 px and above 5 % of the true speed.
        wauc: integer numerator of the weighted area under the curve, see :func:`figures`.
        nonfinite: evaluated pixels whose prediction is NaN or infinite; their error counts as infinite.
    """

    pixels: int = 0
    error: float = 0.0
    zero_error: float = 0.0
    below_1: int = 0
    below_3: int = 0
    below_5: int = 0
    fl: int = 0
    wauc: int = 0
    nonfinite: int = 0

    def __add__(self, other: PixelSums) -> PixelSums:
        return PixelSums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def flow_array(flow: Any, name: str = "flow") -> np.ndarray:
    """Return a flow field as a numpy array H×W×2, whichever of the two conventions it comes in.

    Args:
        flow: torch tensor 2×H×W, or numpy array H×W×2.
        name: what to call it in an error.

    Raises:
        DataError: the shape is neither.
    """
    if hasattr(flow, "detach"):
        if flow.ndim != 3 or flow.shape[0] != 2:
            raise DataError(f"{name}: expected a tensor 2×H×W, got {tuple(flow.shape)}")
        return np.ascontiguousarray(flow.detach().float().cpu().numpy().transpose(1, 2, 0))
    array = np.asarray(flow)
    if array.ndim != 3 or array.shape[2] != 2:
        raise DataError(f"{name}: expected an array H×W×2, got {array.shape}")
    return array


def _mask_array(mask: Any, shape: tuple[int, int], name: str) -> np.ndarray:
    array = mask.detach().cpu().numpy() if hasattr(mask, "detach") else np.asarray(mask)
    array = array.reshape(array.shape[-2:]) if array.ndim == 3 and array.shape[0] == 1 else array
    if array.shape != shape:
        raise DataError(f"{name}: expected a mask {shape[0]}×{shape[1]} like the ground truth, got {array.shape}")
    return array


def epe_map(pred: Any, gt: Any) -> np.ndarray:
    """Return the end-point error ``||pred - gt||_2`` of every pixel.

    Args:
        pred: predicted flow, tensor 2×H×W or array H×W×2, in pixels.
        gt: true flow in the same shape; NaN where unknown.

    Returns:
        Array H×W float64; NaN where the ground truth is not finite, infinite where only the prediction is not.

    Raises:
        DataError: the shapes differ.
    """
    pred, gt = flow_array(pred, "predicted flow"), flow_array(gt, "true flow")
    if pred.shape != gt.shape:
        raise DataError(
            f"predicted flow is {pred.shape[1]}×{pred.shape[0]} pixels, the true flow {gt.shape[1]}×{gt.shape[0]}: "
            "padding must be cropped away before evaluation"
        )
    known = np.isfinite(gt).all(axis=2)
    with np.errstate(invalid="ignore", over="ignore"):
        error = _norm(pred.astype(np.float64) - gt)
    return np.where(known, np.where(np.isfinite(error), error, np.inf), np.nan)


def _norm(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt(vectors[..., 0] ** 2 + vectors[..., 1] ** 2)


def _nearest_of_2x2(pred: np.ndarray, gt_double: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose among the 2×2 true values of each pixel the nearest to the prediction; also the smallest speed."""
    height, width = pred.shape[:2]
    if gt_double.shape[:2] != (2 * height, 2 * width):
        raise DataError(
            f"doubled true flow: expected {2 * height}×{2 * width} values for a prediction of {height}×{width}, "
            f"got {gt_double.shape[0]}×{gt_double.shape[1]}"
        )
    candidates = gt_double.reshape(height, 2, width, 2, 2).transpose(0, 2, 1, 3, 4).reshape(height, width, 4, 2)
    candidates = candidates.astype(np.float64)
    known = np.isfinite(candidates).all(axis=3)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.where(known, _norm(pred[:, :, None].astype(np.float64) - candidates), np.inf)
        speed = np.where(known, _norm(candidates), np.inf).min(axis=2)
    # A known value wins over an unknown one even if the prediction is not finite.
    distance = np.where(known & ~np.isfinite(distance), np.finfo(np.float64).max, distance)
    nearest = np.take_along_axis(candidates, distance.argmin(axis=2)[:, :, None, None], axis=2)[:, :, 0]
    return nearest, np.where(known.any(axis=2), speed, np.nan)


def occlusion_boundary_distance(occlusion: np.ndarray) -> np.ndarray:
    """Return each pixel's Euclidean distance in pixels to the nearest occlusion boundary; infinite if there is none.

    A boundary pixel is one whose 3×3 neighbourhood (inside the picture) holds occluded and visible pixels.

    Args:
        occlusion: H×W bool, true where the pixel of frame 1 is not visible in frame 2.
    """
    occluded = np.ascontiguousarray(occlusion, dtype=np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    boundary = cv2.dilate(occluded, kernel) != cv2.erode(occluded, kernel)
    if not boundary.any():
        return np.full(occluded.shape, np.inf)
    return cv2.distanceTransform((~boundary).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float64)


def flow_sums(
    pred: Any,
    gt: Any,
    valid: Any = None,
    occlusion: Any = None,
    *,
    gt_double: Any = None,
    **masks: Any,
) -> dict[str, PixelSums]:
    """Return the sums of one pair for each region that its masks define.

    A pixel is evaluated where ``valid`` is set and the ground truth is finite. Regions: ``all``; by true speed
    ``s0-10``, ``s10-40``, ``s40+``; with ``occlusion`` ``matched``, ``unmatched`` and, by distance to the nearest
    occlusion boundary, ``d0-10``, ``d10-60``, ``d60-140``; and those of :data:`SPLITS` whose mask is given.

    Args:
        pred: predicted flow, tensor 2×H×W or array H×W×2, in pixels.
        gt: true flow in the same shape.
        valid: H×W mask, non-zero where the ground truth counts; default everywhere.
        occlusion: H×W mask, non-zero where the pixel is not visible in frame 2.
        gt_double: true flow on the doubled grid (2×2H×2W or 2H×2W×2, NaN = unknown, values in image pixels). The
            error is then the smallest over the 2×2 true values of a pixel, and the speed the smallest of theirs
            (Spring benchmark, Mehl et al. 2023).
        masks: H×W masks, or None: ``noc`` (KITTI's non-occluded ground truth), ``foreground`` (> 0 in KITTI's object
            map), ``detail``, ``nonrigid`` and ``sky`` (Spring).

    Raises:
        DataError: shapes do not agree.
    """
    pred, gt = flow_array(pred, "predicted flow"), flow_array(gt, "true flow")
    shape = gt.shape[:2]
    if gt_double is None:
        nearest, speed = gt, _norm(gt.astype(np.float64))
    else:
        nearest, speed = _nearest_of_2x2(pred, flow_array(gt_double, "doubled true flow"))
    error = epe_map(pred, nearest)

    known = ~np.isnan(error)
    if valid is not None:
        known &= _mask_array(valid, shape, "valid mask") > 0
    regions = {"all": known}
    for name, (low, high) in SPEED_CLASSES.items():
        regions[name] = known & (speed >= low) & (speed < high)
    if occlusion is not None:
        occluded = _mask_array(occlusion, shape, "occlusion mask") > 0
        regions["matched"], regions["unmatched"] = known & ~occluded, known & occluded
        distance = occlusion_boundary_distance(occluded)
        for name, (low, high) in DISTANCE_CLASSES.items():
            regions[name] = known & (distance >= low) & (distance < high)
    for name, given in masks.items():
        if name not in SPLITS:
            raise TypeError(f"flow_sums() got an unexpected mask {name!r}; expected one of {', '.join(SPLITS)}")
        if given is not None:
            mask = _mask_array(given, shape, f"{name} mask") > 0
            inside, outside = SPLITS[name]
            regions[inside] = known & mask
            if outside:
                regions[outside] = known & ~mask

    true_speed = _norm(nearest.astype(np.float64))
    return {name: _sums(error[mask], true_speed[mask], speed[mask]) for name, mask in regions.items()}


def _sums(error: np.ndarray, true_speed: np.ndarray, zero_error: np.ndarray) -> PixelSums:
    # Index of the first threshold that the error does not exceed: all thresholds from there on count the pixel.
    first = np.searchsorted(_WAUC_THRESHOLDS, error, side="left").astype(np.int64)
    remaining = _WAUC_STEPS - first
    return PixelSums(
        pixels=int(error.size),
        error=float(error.sum()),
        zero_error=float(zero_error.sum()),
        below_1=int((error < 1).sum()),
        below_3=int((error < 3).sum()),
        below_5=int((error < 5).sum()),
        # As a product, so that a motionless pixel with an error above 3 px is an outlier.
        fl=int(((error > 3) & (error > 0.05 * true_speed)).sum()),
        wauc=int((remaining * (remaining + 1)).sum()),
        nonfinite=int(np.isinf(error).sum()),
    )


def add_sums(many: Iterable[Mapping[str, PixelSums]]) -> dict[str, PixelSums]:
    """Add the sums of many pairs region by region, in the order given."""
    total: dict[str, PixelSums] = {}
    for sums in many:
        for region, value in sums.items():
            total[region] = total[region] + value if region in total else value
    return total


def figures(sums: PixelSums) -> dict[str, float | int | None]:
    """Return the figures of a region; ``None`` for what is undefined because the region is empty.

    * ``EPE``: mean end-point error over all its pixels of all pairs (pooled), in pixels.
    * ``EPE_zero``: the same for a prediction of zero everywhere, i.e. the mean true speed.
    * ``EPE_ratio``: ``EPE / EPE_zero``; below 1 is better than predicting no motion.
    * ``1px``, ``3px``, ``5px``: share (0..1) of pixels with an error *below* 1, 3, 5 px.
    * ``1px_outliers``: percent of pixels with an error of at least 1 px (Spring).
    * ``Fl``: percent of pixels with an error above 3 px and above 5 % of the true speed (KITTI 2015).
    * ``WAUC``: ``100 * sum_i w_i share(error <= i/20 px) / sum_i w_i``, i = 1..100, ``w_i = 1 - (i-1)/100``:
      100 is perfect (VIPER, Richter et al. 2017).
    * ``pixels``, ``nonfinite_pixels``: counts.
    """
    count = sums.pixels
    mean = {
        "EPE": sums.error,
        "EPE_zero": sums.zero_error,
        "1px": sums.below_1,
        "3px": sums.below_3,
        "5px": sums.below_5,
        "1px_outliers": 100.0 * (count - sums.below_1),
        "Fl": 100.0 * sums.fl,
        "WAUC": 100.0 * sums.wauc / _WAUC_FULL,
    }
    result: dict[str, float | int | None] = {name: value / count if count else None for name, value in mean.items()}
    result["EPE_ratio"] = sums.error / sums.zero_error if sums.zero_error > 0 else None
    return result | {"pixels": count, "nonfinite_pixels": sums.nonfinite}


def flow_statistics(pred: Any, gt: Any, valid: Any = None, occlusion: Any = None, **masks: Any) -> dict[str, dict]:
    """Return the :func:`figures` of one pair for each region; arguments, regions and errors as in :func:`flow_sums`.

    Example:
        >>> flow_statistics(pred, gt, valid)["all"]["EPE"]
    """
    return {region: figures(sums) for region, sums in flow_sums(pred, gt, valid, occlusion, **masks).items()}
