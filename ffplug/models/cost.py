"""Matching costs: the all-pairs correlation pyramid of RAFT, stored or computed on demand."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ffplug.models.parts import Cost, Encoded
from ffplug.ops import corr_lookup, corr_lookup_on_demand, pool_levels
from ffplug.registry import MODELS


@dataclasses.dataclass
class CorrelationPyramid:
    """The correlation of every cell of frame 1 with every cell of all levels of frame 2.

    Attributes:
        volume: N×(h·w)×T.
        sizes: (height, width) of each level.
    """

    volume: Tensor
    sizes: tuple[tuple[int, int], ...]


@dataclasses.dataclass
class FeaturePyramid:
    """The features from which the correlation is computed where it is looked up.

    Attributes:
        feature1: N×C×h×w, scaled.
        levels: N×C×T, all levels of frame 2 side by side.
        sizes: (height, width) of each level.
    """

    feature1: Tensor
    levels: Tensor
    sizes: tuple[tuple[int, int], ...]


class _Correlation(Cost):
    def __init__(self, levels: int = 4, radius: int = 4, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.levels = levels
        self.radius = radius
        self.out_channels = levels * (2 * radius + 1) ** 2

    def _features(self, encoded: Encoded) -> tuple[Tensor, Tensor, tuple[tuple[int, int], ...]]:
        # Half precision overflows in the sums of the volume, so it stays in float32 (or float64) under autocast.
        dtype = torch.promote_types(encoded.feature1.dtype, torch.float32)
        feature1 = encoded.feature1.to(dtype) * encoded.feature1.shape[1] ** -0.5
        levels, sizes = pool_levels(encoded.feature2.to(dtype), self.levels)
        return feature1, levels, sizes


@MODELS.register_module()
class AllPairsCorrelation(_Correlation):
    """RAFT's correlation pyramid, computed once per pair; memory O((h·w)²).

    Args:
        levels: number of pyramid levels.
        radius: r of the (2r+1)² window that is looked up in every level.
        init_cfg: see MMEngine's ``BaseModule``.
    """

    def forward(self, encoded: Encoded) -> CorrelationPyramid:
        """Features N×C×h×w -> pyramid; the product is divided by sqrt(C)."""
        with torch.autocast(encoded.feature1.device.type, enabled=False):
            feature1, levels, sizes = self._features(encoded)
            return CorrelationPyramid(feature1.flatten(2).transpose(1, 2) @ levels, sizes)

    def lookup(self, cost: CorrelationPyramid, flow: Tensor) -> Tensor:
        """Low-resolution flow N×2×h×w -> N×(L·(2r+1)²)×h×w."""
        return corr_lookup(cost.volume, cost.sizes, flow, self.radius)


@MODELS.register_module()
class OnDemandCorrelation(_Correlation):
    """The same numbers with memory O(h·w·C): for large frames, or little memory.

    Args:
        levels: number of pyramid levels.
        radius: r of the (2r+1)² window that is looked up in every level.
        init_cfg: see MMEngine's ``BaseModule``.
    """

    def forward(self, encoded: Encoded) -> FeaturePyramid:
        """Features N×C×h×w -> scaled features of frame 1 and all levels of frame 2."""
        return FeaturePyramid(*self._features(encoded))

    def lookup(self, cost: FeaturePyramid, flow: Tensor) -> Tensor:
        """Low-resolution flow N×2×h×w -> N×(L·(2r+1)²)×h×w."""
        with torch.autocast(flow.device.type, enabled=False):
            return corr_lookup_on_demand(cost.feature1, cost.levels, cost.sizes, flow, self.radius)
