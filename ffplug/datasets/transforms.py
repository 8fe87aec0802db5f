"""The first and the last step of every pipeline: loading a frame pair and packing it for the model.

Between transforms a sample is a dict: ``img1`` and ``img2`` H×W×3 uint8 RGB, ``flow`` H×W×2 float32 and ``valid`` H×W
float32 where there is ground truth, any of the masks in :data:`MASKS`, and the metainfo. A plugin's samples may have
more that lies on the grid of frame 1: ``further_flows`` names flows (``NAME_flow``, with ``NAME_valid`` beside it),
``further_masks`` names masks and ``further_maps`` names maps of numbers, H×W float32. All transforms treat them as
they treat ``flow`` and the masks; maps, and flows that ``nearest_flows`` names (motion vectors of blocks), are taken
from the nearest pixel.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from ffplug.datasets.formats import read_flow, read_image, read_mask
from ffplug.errors import DataError
from ffplug.registry import TRANSFORMS
from ffplug.structures import FlowDataSample

MASKS = ("occlusion", "foreground", "detail", "nonrigid", "sky")
"""Dense masks H×W bool that a sample may have; ``valid_noc`` is the one that lies with the sparse flow."""


def flow_keys(results: dict[str, Any]) -> list[tuple[str, str]]:
    """The keys of a sample's true flows and of the masks where they are known: ``flow`` and ``valid`` first."""
    names = (name for name in ("flow", *results.get("further_flows", ())) if name in results)
    return [(name, f"{name.removesuffix('flow')}valid") for name in names]


def mask_keys(results: dict[str, Any]) -> list[str]:
    """The keys of a sample's dense masks."""
    return [name for name in (*MASKS, *results.get("further_masks", ())) if name in results]


def map_keys(results: dict[str, Any]) -> list[str]:
    """The keys of a sample's further maps of numbers."""
    return [name for name in results.get("further_maps", ()) if name in results]


META_KEYS = (
    "img1_path",
    "img2_path",
    "flow_path",
    "ori_shape",
    "dataset",
    "sequence",
    "frame",
    "sample_id",
    "procedural",
    "draw",
)


@TRANSFORMS.register_module()
class LoadFlowPair:
    """Read both frames, the flow and the masks that the dataset names, and check that their sizes agree.

    Args:
        masks: read occlusion, foreground and further masks too, where they exist.
        mask_invalid: count Sintel's ``invalid`` pixels as unknown. The published figures do not (default).
        double: of flow on a grid twice as fine as the frames (Spring), keep all of it as ``flow_double`` (NaN where
            unknown) for metrics that compare with 2×2 values; ``flow`` is every second row and column of it.

    Raises:
        DataError: unreadable file, frames of two sizes, flow or mask of another size than the frames.
    """

    def __init__(self, masks: bool = True, mask_invalid: bool = False, double: bool = False) -> None:
        self.masks = masks
        self.mask_invalid = mask_invalid
        self.double = double

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img1``, ``img2``, ``ori_shape`` and what ground truth there is."""
        first, second = read_image(results["img1_path"]), read_image(results["img2_path"])
        if first.shape != second.shape:
            raise DataError(
                f"{results['img2_path']}: the two frames of a pair must have one size: expected "
                f"{_size(first)} as {results['img1_path']}, found {_size(second)} (W×H)"
            )
        results.update(img1=first, img2=second, ori_shape=first.shape[:2])
        paths = results.get("mask_paths", {})
        if results.get("flow_path"):
            flow, valid = read_flow(results["flow_path"])
            if self.double and results.get("doubled"):
                results["flow_double"] = np.where((valid > 0)[..., None], flow, np.float32(np.nan))
            results["flow"], valid = (_fit(array, results["flow_path"], results) for array in (flow, valid))
            if "valid" in paths:
                valid = valid * _mask("valid", results)
            if self.mask_invalid and "invalid" in paths:
                valid = valid * ~_mask("invalid", results)
            results["valid"] = valid
        if self.masks:
            results.update({name: _mask(name, results) for name in MASKS if name in paths})
            if "valid_noc" in paths:
                results["valid_noc"] = _fit(read_flow(paths["valid_noc"])[1], paths["valid_noc"], results)
        return results


@TRANSFORMS.register_module()
class PackFlowInputs:
    """Turn the arrays into ``dict(inputs=uint8 Tensor 2×3×H×W, data_samples=FlowDataSample)``."""

    sample_type: ClassVar[type[FlowDataSample]] = FlowDataSample

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack the sample; the last step of a pipeline."""
        height, width = results["img1"].shape[:2]
        inputs = np.empty((2, 3, height, width), np.uint8)
        inputs[0] = results["img1"].transpose(2, 0, 1)
        inputs[1] = results["img2"].transpose(2, 0, 1)
        sample = self.sample_type(metainfo={key: results.get(key) for key in META_KEYS})
        for flow, valid in flow_keys(results):
            setattr(sample, f"gt_{flow}", _tensor(results[flow].transpose(2, 0, 1), np.float32))
            setattr(sample, f"gt_{valid}", _tensor(results[valid], np.float32))
        if "flow_double" in results:
            sample.gt_flow_double = _tensor(results["flow_double"].transpose(2, 0, 1), np.float32)
        if "valid_noc" in results:
            sample.gt_valid_noc = _tensor(results["valid_noc"], np.float32)
        for name in mask_keys(results):
            setattr(sample, f"gt_{name}", _tensor(results[name], np.bool_))
        for name in map_keys(results):
            setattr(sample, f"gt_{name}", _tensor(results[name], np.float32))
        return dict(inputs=torch.from_numpy(inputs), data_samples=sample)


def _mask(name: str, results: dict[str, Any]) -> np.ndarray:
    path = results["mask_paths"][name]
    return _fit(read_mask(path, results.get("mask_above", 0)), path, results)


def _fit(array: np.ndarray, path: str, results: dict[str, Any]) -> np.ndarray:
    """Bring ground truth to the frames' grid, or fail when its size does not allow it."""
    height, width = results["ori_shape"]
    if array.shape[:2] == (height, width):
        return array
    if results.get("doubled") and array.shape[:2] == (2 * height, 2 * width):
        return array[::2, ::2]
    raise DataError(f"{path}: expected {width}×{height} as the frames, found {_size(array)} (W×H)")


def _tensor(array: np.ndarray, dtype: type) -> torch.Tensor:
    """A tensor with memory of its own, whatever strides or write protection the array has."""
    return torch.from_numpy(np.array(array, dtype, order="C"))


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}×{array.shape[0]}"
