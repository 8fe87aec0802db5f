"""The augmentation of the RAFT line (Teed and Deng, ECCV 2020): colour jitter, eraser, scale, flip, crop.

Two pipelines, by ``mode``: ``'raft'`` draws the same random numbers in the same order as the published code and keeps
its quirks, ``'clean'`` mends them (every crop position is possible, an image that is too small for the crop is scaled
up, the sparse resize fills the first row and column as well). NumPy's and torch's global generators are used; the
data set seeds them per sample.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageEnhance

from ffplug.datasets.base import choose
from ffplug.datasets.transforms import flow_keys, map_keys, mask_keys
from ffplug.errors import ConfigError, DataError
from ffplug.registry import TRANSFORMS

HUE = 0.5 / 3.14
SPARSE_HUE = 0.3 / 3.14


class ColorJitter:
    """Random brightness, contrast, saturation and hue in random order, equal to torchvision's on PIL images.

    Args:
        brightness: the factor is uniform in 1 ± this.
        contrast: the same for contrast.
        saturation: the same for saturation.
        hue: the shift is uniform in ± this, as a share of the colour circle (at most 0.5).
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        self.ranges = [(max(0.0, 1 - value), 1 + value) for value in (brightness, contrast, saturation)]
        self.ranges.append((-hue, hue))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return a jittered copy of an RGB image H×W×3 uint8."""
        order = torch.randperm(4).tolist()
        factors = [float(torch.empty(1).uniform_(low, high)) for low, high in self.ranges]
        for index in order:
            image = (_brightness, _contrast, _saturation, _hue)[index](image, factors[index])
        return image


def _blend_table(base: float, factor: float) -> np.ndarray:
    """Look-up table of PIL's blend of a constant with a value: base + factor * (value - base), cut to 0..255."""
    base = np.float32(base)
    values = base + np.float32(factor) * (np.arange(256, dtype=np.float32) - base)
    return np.clip(values, 0, 255).astype(np.uint8)


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.LUT(image, _blend_table(0, factor))


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    grey = np.asarray(Image.fromarray(image).convert("L"))
    return cv2.LUT(image, _blend_table(int(grey.mean() + 0.5), factor))


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    return np.array(ImageEnhance.Color(Image.fromarray(image)).enhance(factor))


def _hue(image: np.ndarray, shift: float) -> np.ndarray:
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    turned = np.asarray(hue) + np.int32(shift * 255).astype(np.uint8)  # wraps round, as intended
    return np.array(Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB"))


class _RAFTAugment:
    """What the dense and the sparse augmentation share."""

    stretch_probability = 0.8
    max_stretch = 0.2
    spatial_probability = 0.8
    erase_probability = 0.5

    def __init__(
        self,
        crop_size: tuple[int, int],
        min_scale: float,
        max_scale: float,
        do_flip: bool,
        mode: str,
        eraser_sides: tuple[int, int],
        jitter: tuple[float, float, float, float] | None,
    ) -> None:
        height, width = crop_size
        if height < 1 or width < 1:
            raise ConfigError(f"crop_size={crop_size}: expected (height, width), both above 0")
        if min_scale > max_scale:
            raise ConfigError(f"min_scale={min_scale} is above max_scale={max_scale}")
        if not 0 < eraser_sides[0] < eraser_sides[1]:
            raise ConfigError(f"eraser_sides={eraser_sides}: expected (least, most + 1) with 0 < least <= most")
        self.crop_size = (height, width)
        self.min_scale, self.max_scale = min_scale, max_scale
        self.do_flip = do_flip
        self.clean = choose("mode", mode, ("raft", "clean")) == "clean"
        self.eraser_sides = eraser_sides
        self.jitter = None if jitter is None else ColorJitter(*jitter)

    def _erase(self, results: dict[str, Any]) -> None:
        """Fill one or two rectangles of a copy of frame 2 with its mean; mark them in the map ``erased``, if there."""
        if np.random.rand() >= self.erase_probability:
            return
        height, width = results["img2"].shape[:2]
        results["img2"] = image = results["img2"].copy()
        colour = np.array(cv2.mean(image)[:3])
        for _ in range(np.random.randint(1, 3)):
            left, top = np.random.randint(0, width), np.random.randint(0, height)
            across, down = np.random.randint(*self.eraser_sides), np.random.randint(*self.eraser_sides)
            image[top : top + down, left : left + across] = colour
            if "erased" in results:
                results["erased"][top : top + down, left : left + across] = 1

    def _jitter_both(self, results: dict[str, Any]) -> None:
        """Jitter both frames as one picture, so that contrast uses their common mean."""
        both = self.jitter(np.concatenate([results["img1"], results["img2"]]))
        results["img1"], results["img2"] = np.split(both, 2)

    def _least_scale(self, image: np.ndarray, margin: int) -> float:
        return max((crop + margin) / side for crop, side in zip(self.crop_size, image.shape[:2], strict=True))

    def _too_small(self, image: np.ndarray) -> bool:
        return any(side < crop for side, crop in zip(image.shape[:2], self.crop_size, strict=True))

    def _check_fits(self, results: dict[str, Any]) -> None:
        if self._too_small(results["img1"]):
            height, width = results["img1"].shape[:2]
            raise DataError(
                f"{results.get('img1_path')}: the crop is {self.crop_size[1]}×{self.crop_size[0]} but the image only "
                f"{width}×{height} (W×H); take a smaller crop_size, or mode='clean', which scales small images up"
            )

    def _check_flow(self, results: dict[str, Any]) -> None:
        if "flow" not in results:
            raise DataError(f"{results.get('img1_path')}: a sample without true flow cannot be augmented for training")
        results.pop("flow_double", None)


def _resize_dense(results: dict[str, Any], sx: float, sy: float) -> None:
    """Resize frames bilinearly, masks and maps to the nearest pixel."""
    for key in ("img1", "img2"):
        results[key] = cv2.resize(results[key], None, fx=sx, fy=sy, interpolation=cv2.INTER_LINEAR)
    for key in mask_keys(results):
        mask = cv2.resize(results[key].view(np.uint8), None, fx=sx, fy=sy, interpolation=cv2.INTER_NEAREST)
        results[key] = mask.view(np.bool_)
    for key in map_keys(results):
        results[key] = cv2.resize(results[key], None, fx=sx, fy=sy, interpolation=cv2.INTER_NEAREST)


def _grid_keys(results: dict[str, Any]) -> list[str]:
    """The keys of a sample's arrays that have the frames' grid."""
    truth = [key for pair in flow_keys(results) for key in pair]
    return [
        key for key in ("img1", "img2", *truth, "valid_noc", *mask_keys(results), *map_keys(results)) if key in results
    ]


def _map_arrays(results: dict[str, Any], index: tuple[slice, ...]) -> None:
    """Slice every array of the sample that has the frames' grid (views, no copies)."""
    for key in _grid_keys(results):
        results[key] = results[key][index]


FLIP_X = (slice(None), slice(None, None, -1))
FLIP_Y = (slice(None, None, -1),)


@TRANSFORMS.register_module()
class RAFTDenseAugment(_RAFTAugment):
    """RAFT's augmentation for dense flow: ``valid`` afterwards means known and below ``max_flow`` in both components.

    Unknown flow spreads to what is interpolated from it and stays unknown.

    Args:
        crop_size: (height, width) of the result.
        min_scale: log2 of the least scale.
        max_scale: log2 of the largest scale.
        do_flip: flip left-right with probability 0.5 and upside down with ``v_flip``.
        mode: ``'raft'`` (published, to the random number) or ``'clean'``.
        max_flow: flow of this size in either component, or more, is invalid (pixels).
        eraser_sides: sides of the erased rectangles: least, and most + 1.
        jitter: brightness, contrast, saturation and hue, or None for no colour change (which draws nothing).
        v_flip: probability of the flip upside down; 0 for faces.

    Raises:
        DataError: in mode ``'raft'``, an image that is smaller than the crop when the resize is not drawn.

    Example:
        dict(type="ffplug.RAFTDenseAugment", crop_size=(368, 496))
    """

    h_flip_probability = 0.5
    asymmetric_probability = 0.2

    def __init__(
        self,
        crop_size: tuple[int, int],
        min_scale: float = -0.2,
        max_scale: float = 0.5,
        do_flip: bool = True,
        mode: str = "raft",
        max_flow: float = 1000.0,
        eraser_sides: tuple[int, int] = (50, 100),
        jitter: tuple[float, float, float, float] | None = (0.4, 0.4, 0.4, HUE),
        v_flip: float = 0.1,
    ) -> None:
        super().__init__(crop_size, min_scale, max_scale, do_flip, mode, eraser_sides, jitter)
        self.max_flow = max_flow
        self.v_flip = v_flip

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Augment frames, flow and masks."""
        self._check_flow(results)
        if self.jitter is not None:
            if np.random.rand() < self.asymmetric_probability:
                results["img1"], results["img2"] = self.jitter(results["img1"]), self.jitter(results["img2"])
            else:
                self._jitter_both(results)
        self._erase(results)
        for flow_key, valid_key in flow_keys(results):
            if (results[valid_key] == 0).any():
                known = (results[valid_key] > 0)[..., None]
                results[flow_key] = np.where(known, results[flow_key], np.float32(np.nan))
        factor = self._scale(results) * self._flip(results)
        self._crop(results)
        for flow_key, valid_key in flow_keys(results):
            flow = (results[flow_key] * factor).astype(np.float32)
            below = np.abs(flow) < self.max_flow  # False for NaN
            valid = below[..., 0] & below[..., 1]
            flow[~np.isfinite(flow)] = 0
            results.update({flow_key: flow, valid_key: valid.astype(np.float32)})
        return results

    def _scale(self, results: dict[str, Any]) -> np.ndarray:
        least = self._least_scale(results["img1"], 8)
        sx = sy = 2 ** np.random.uniform(self.min_scale, self.max_scale)
        if np.random.rand() < self.stretch_probability:
            sx *= 2 ** np.random.uniform(-self.max_stretch, self.max_stretch)
            sy *= 2 ** np.random.uniform(-self.max_stretch, self.max_stretch)
        sx, sy = max(sx, least), max(sy, least)
        apply = np.random.rand() < self.spatial_probability
        if not apply and not (self.clean and self._too_small(results["img1"])):
            return np.ones(2)
        _resize_dense(results, sx, sy)
        for flow, valid in flow_keys(results):
            nearest = flow in results.get("nearest_flows", ())
            way = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
            results[flow] = cv2.resize(results[flow], None, fx=sx, fy=sy, interpolation=way)
            results.pop(valid)
        return np.array([sx, sy])

    def _flip(self, results: dict[str, Any]) -> np.ndarray:
        sign = np.ones(2)
        if self.do_flip:
            if np.random.rand() < self.h_flip_probability:
                _map_arrays(results, FLIP_X)
                sign[0] = -1
            if np.random.rand() < self.v_flip:
                _map_arrays(results, FLIP_Y)
                sign[1] = -1
        return sign

    def _crop(self, results: dict[str, Any]) -> None:
        self._check_fits(results)
        (height, width), (ch, cw) = results["img1"].shape[:2], self.crop_size
        # The published range leaves out the last position; where it would be empty there is only one.
        extra = 1 if self.clean else 0
        top = np.random.randint(0, max(1, height - ch + extra))
        left = np.random.randint(0, max(1, width - cw + extra))
        _map_arrays(results, (slice(top, top + ch), slice(left, left + cw)))


@TRANSFORMS.register_module()
class RAFTSparseAugment(_RAFTAugment):
    """RAFT's augmentation for sparse flow (KITTI, HD1K): known pixels are scattered, never interpolated.

    Args:
        crop_size: (height, width) of the result.
        min_scale: log2 of the least scale.
        max_scale: log2 of the largest scale.
        do_flip: flip left-right with probability 0.5.
        mode: ``'raft'`` (published, to the random number) or ``'clean'``.
        pad: fill images that are smaller than the crop with invalid black at the bottom and on the right (as
            FlowFormer does; RAFT fails there).
        eraser_sides: sides of the erased rectangles: least, and most + 1.
        jitter: brightness, contrast, saturation and hue, or None for no colour change (which draws nothing).

    Raises:
        DataError: an image that is smaller than the crop, with ``pad=False``, when the resize is not drawn.

    Example:
        dict(type="ffplug.RAFTSparseAugment", crop_size=(288, 960))
    """

    h_flip_probability = 0.5
    margin_y = 20
    margin_x = 50

    def __init__(
        self,
        crop_size: tuple[int, int],
        min_scale: float = -0.2,
        max_scale: float = 0.5,
        do_flip: bool = False,
        mode: str = "raft",
        pad: bool = True,
        eraser_sides: tuple[int, int] = (50, 100),
        jitter: tuple[float, float, float, float] | None = (0.3, 0.3, 0.3, SPARSE_HUE),
    ) -> None:
        super().__init__(crop_size, min_scale, max_scale, do_flip, mode, eraser_sides, jitter)
        self.pad = pad

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Augment frames, flow and masks."""
        self._check_flow(results)
        if self.jitter is not None:
            self._jitter_both(results)
        self._erase(results)
        if self.pad:
            self._pad(results)
        self._scale(results)
        if self.do_flip and np.random.rand() < self.h_flip_probability:
            _map_arrays(results, FLIP_X)
            for flow, _ in flow_keys(results):
                results[flow] = results[flow] * np.array([-1, 1], np.float32)
        self._crop(results)
        return results

    def _pad(self, results: dict[str, Any]) -> None:
        height, width = results["img1"].shape[:2]
        down, across = (max(0, crop - side) for crop, side in zip(self.crop_size, (height, width), strict=True))
        if down or across:
            for key in _grid_keys(results):
                edges = ((0, down), (0, across)) + ((0, 0),) * (results[key].ndim - 2)
                results[key] = np.pad(results[key], edges)

    def _scale(self, results: dict[str, Any]) -> None:
        least = self._least_scale(results["img1"], 1)
        scale = max(2 ** np.random.uniform(self.min_scale, self.max_scale), least)
        apply = np.random.rand() < self.spatial_probability
        if not apply and not (self.clean and self._too_small(results["img1"])):
            return
        _resize_dense(results, scale, scale)
        first = 0 if self.clean else 1
        noc = results.get("valid_noc")
        if noc is not None:
            results["valid_noc"] = resize_sparse_flow(results["flow"], noc, scale, scale, first)[1]
        for flow, valid in flow_keys(results):
            results[flow], results[valid] = resize_sparse_flow(results[flow], results[valid], scale, scale, first)
        if noc is not None:
            results["valid_noc"] = results["valid_noc"] * results["valid"]

    def _crop(self, results: dict[str, Any]) -> None:
        self._check_fits(results)
        (height, width), (ch, cw) = results["img1"].shape[:2], self.crop_size
        extra = 1 if self.clean else 0
        # Positions beyond the border are drawn and clipped, so that the borders are seen more often.
        top = np.random.randint(0, height - ch + self.margin_y + extra)
        left = np.random.randint(-self.margin_x, width - cw + self.margin_x + extra)
        top, left = min(top, height - ch), min(max(left, 0), width - cw)
        _map_arrays(results, (slice(top, top + ch), slice(left, left + cw)))


def resize_sparse_flow(
    flow: np.ndarray, valid: np.ndarray, fx: float, fy: float, first: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Resize sparse flow by moving every known pixel to its rounded new place (half to even).

    Args:
        flow: H×W×2 float32, pixels.
        valid: H×W, 1 where known.
        fx: horizontal scale; the flow's x component is multiplied by it.
        fy: vertical scale.
        first: the first row and column that may be filled: 1 as published, 0 for all.

    Returns:
        Flow round(H fy)×round(W fx)×2 and its mask; where several pixels meet, the last in row order stays.
    """
    height, width = (round(side * factor) for side, factor in zip(flow.shape[:2], (fy, fx), strict=True))
    y, x = np.nonzero(valid >= 1)
    values = (flow[y, x] * np.array([fx, fy])).astype(np.float32)
    to_x, to_y = np.round(x * fx).astype(np.int64), np.round(y * fy).astype(np.int64)
    inside = (to_x >= first) & (to_x < width) & (to_y >= first) & (to_y < height)
    to_x, to_y = to_x[inside], to_y[inside]
    resized, mask = np.zeros((height, width, 2), np.float32), np.zeros((height, width), np.float32)
    resized[to_y, to_x] = values[inside]
    mask[to_y, to_x] = 1
    return resized, mask
