"""Loading and packing of facial and head flow in one sample."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch

from ffplug.datasets.formats import read_bytes, read_flow
from ffplug.datasets.transforms import LoadFlowPair, PackFlowInputs
from ffplug.errors import DataError
from ffplug_decflow.registry import TRANSFORMS
from ffplug_decflow.structures import FaceFlowSample

MAX_FLOW = 1000.0
"""Flow of this size in either component, in pixels, is no flow (DecFlow's published loader)."""


def read_head_mask(path: str) -> np.ndarray:
    """Read FacialFlowNet's mask of the head: ``.npy``, H×W of 0 and 1, as bool.

    Raises:
        DataError: the file is missing or damaged, would run code, or holds something else.
    """
    try:
        array = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: expected a NumPy array H×W (.npy), found a damaged file ({reason})") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "biuf":
        found = f"{array.shape} {array.dtype}" if isinstance(array, np.ndarray) else "several arrays"
        raise DataError(f"{path}: expected a mask H×W of 0 and 1, found {found}")
    return array > 0.5


@TRANSFORMS.register_module()
class LoadFaceFlow(LoadFlowPair):
    """Read both frames, facial flow, head flow and the head's mask; flow of 1000 px or more, and NaN, is invalid.

    Args:
        masks: read mask and occlusion, where they exist.

    Raises:
        DataError: unreadable file, or sizes that do not agree.

    Example:
        dict(type="ffplug_decflow.LoadFaceFlow")
    """

    def __init__(self, masks: bool = True) -> None:
        super().__init__(masks=masks)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add frames, ``flow``, ``head_flow``, their validity and ``mask``."""
        results = super().__call__(results)
        if results.get("head_flow_path"):
            results["head_flow"], results["head_valid"] = read_flow(results["head_flow_path"])
            self._check(results["head_flow"], results["head_flow_path"], results)
            results["further_flows"] = ("head_flow",)
        for flow, valid in (("flow", "valid"), ("head_flow", "head_valid")):
            if flow in results:
                known = (np.abs(results[flow]) < MAX_FLOW).all(axis=2) & (results[valid] > 0)
                results[flow] = np.where(known[..., None], results[flow], np.float32(0))
                results[valid] = known.astype(np.float32)
        if self.masks and results.get("head_mask_path"):
            results["mask"] = read_head_mask(results["head_mask_path"])
            self._check(results["mask"], results["head_mask_path"], results)
            results["further_masks"] = ("mask",)
        return results

    @staticmethod
    def _check(array: np.ndarray, path: str, results: dict[str, Any]) -> None:
        (height, width), found = results["ori_shape"], array.shape
        if found[:2] != (height, width):
            raise DataError(f"{path}: expected {width}×{height} as the frames, found {found[1]}×{found[0]} (W×H)")


@TRANSFORMS.register_module()
class PackFaceInputs(PackFlowInputs):
    """Pack frames and truth as :class:`~ffplug_decflow.structures.FaceFlowSample`, expression flow included.

    Example:
        dict(type="ffplug_decflow.PackFaceInputs")
    """

    sample_type = FaceFlowSample

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack the sample; the last step of a pipeline."""
        packed = super().__call__(results)
        sample = packed["data_samples"]
        if "gt_flow" in sample and "gt_head_flow" in sample:
            valid = sample.gt_valid * sample.gt_head_valid
            sample.gt_expression_flow = torch.where(valid > 0, sample.gt_flow - sample.gt_head_flow, 0)
            sample.gt_expression_valid = valid
        return packed
