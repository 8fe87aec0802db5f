"""Transforms: regions of the face from disk, and the augmentation that keeps the background's flow off the face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from ffplug_face.models.head import REGIONS

from ffplug.datasets.augmentation import RAFTDenseAugment
from ffplug.datasets.base import choose_all
from ffplug.datasets.formats import read_image
from ffplug.datasets.transforms import flow_keys
from ffplug.errors import DataError
from ffplug_srflownet.registry import TRANSFORMS


def add_regions(results: dict[str, Any], labels: np.ndarray, names: Sequence[str]) -> None:
    """Add the masks of named regions (``gt_lips``, once packed) to a sample, from labels H×W."""
    results["further_masks"] = (*results.get("further_masks", ()), *names)
    results.update({name: labels == REGIONS.index(name) for name in names})


@TRANSFORMS.register_module()
class LoadRegions:
    """Add masks of regions of the face to a pair of :class:`SRFlowDataset` whose set has them (``region/``).

    It comes after ``LoadFlowPair``. Losses and metrics take the masks by name: ``mask="lips"``.

    Args:
        names: which of :data:`ffplug_face.models.head.REGIONS`.

    Raises:
        ConfigError: there is no such region.
        DataError: the set has no regions, or of another size than the frames.

    Example:
        dict(type="ffplug_srflownet.LoadRegions", names=("lips",))
    """

    def __init__(self, names: Sequence[str] = REGIONS) -> None:
        self.names = choose_all("names", names, REGIONS)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the masks, H×W bool."""
        path = results.get("region_path")
        if path is None:
            raise DataError(f"{results['img1_path']}: the set has no region/ of this frame, which LoadRegions needs")
        labels = read_image(path)[..., 0]
        if labels.shape != tuple(results["ori_shape"]):
            height, width = results["ori_shape"]
            found = f"{labels.shape[1]}×{labels.shape[0]}"
            raise DataError(f"{path}: expected {width}×{height} as the frames, found {found} (W×H)")
        add_regions(results, labels, self.names)
        return results


@TRANSFORMS.register_module()
class MaskedDenseAugment(RAFTDenseAugment):
    """RAFT's augmentation, whose resize mixes no flow of the background into the face's, nor the other way round.

    Each pixel's flow is interpolated from those on its own side of the mask, over the weight that they have there. A
    plain interpolation leaves a rim of flow between the person's and the background's 0, which nothing has.

    Args:
        mask: name of the samples' mask.
        **kwargs: see :class:`ffplug.datasets.augmentation.RAFTDenseAugment`.

    Raises:
        DataError: a sample has no such mask.

    Example:
        dict(type="ffplug_srflownet.MaskedDenseAugment", crop_size=(64, 64), mode="clean")
    """

    def __init__(self, *args: Any, mask: str = "foreground", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mask = mask

    def _scale(self, results: dict[str, Any]) -> np.ndarray:
        if self.mask not in results:
            raise DataError(f"{results.get('img1_path')}: MaskedDenseAugment: the sample has no mask {self.mask!r}")
        face, flows = results[self.mask], {name: results[name] for name, _ in flow_keys(results)}
        factor = super()._scale(results)
        if not (factor == 1).all():
            for name, flow in flows.items():
                inside, outside = (_resize_within(flow, side, factor) for side in (face, ~face))
                results[name] = np.where(results[self.mask][..., None], inside, outside)
        return factor


def _resize_within(flow: np.ndarray, mask: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Resize flow (whose values stay) from what lies within the mask."""
    ways = dict(fx=factor[0], fy=factor[1], interpolation=cv2.INTER_LINEAR)
    total = cv2.resize(np.where(mask[..., None], flow, np.float32(0)), None, **ways)
    weight = cv2.resize(mask.astype(np.float32), None, **ways)[..., None]
    return total / np.maximum(weight, 1e-6)
