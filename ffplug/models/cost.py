"""Matching costs: the all-pairs correlation pyramid of RAFT, stored or computed on demand."""

from __future__ import annotations

import dataclasses

import torch
from mmengine.logging import print_log
from torch import Tensor

from ffplug.errors import ConfigError
from ffplug.models.parts import Cost, Encoded
from ffplug.ops import batched_row_product, corr_lookup, corr_lookup_on_demand, pool_levels, requested_backend
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
        query: features of frame 1, a row for each cell, N×(h·w)×C, scaled.
        table: all levels of frame 2 after one another, N×T×C.
        sizes: (height, width) of each level.
    """

    query: Tensor
    table: Tensor
    sizes: tuple[tuple[int, int], ...]


@torch.compiler.assume_constant_result
def available_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device, or None where that can't be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


@torch.compiler.assume_constant_result
def _fast_on_demand() -> bool:
    return requested_backend() != "torch" and "cpp" in corr_lookup_on_demand.backends()


@MODELS.register_module()
class AllPairsCorrelation(Cost):
    """RAFT's correlation pyramid (section 3.2): stored once per pair, or computed where it is looked up.

    Both forms give the same numbers to rounding. The stored pyramid takes memory O((h·w)²), 5.6 GB for a 1080p pair;
    on demand it is O(h·w·C).

    Args:
        levels: number of pyramid levels.
        radius: r of the (2r+1)² window that is looked up in every level.
        on_demand: True computes products where they are looked up, False stores the pyramid, ``auto`` stores it where
            that is faster (on a GPU, and on a CPU in training) and takes less than a quarter of the free memory.
        init_cfg: see MMEngine's ``BaseModule``.
    """

    def __init__(
        self, levels: int = 4, radius: int = 4, on_demand: bool | str = "auto", init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        if on_demand not in (True, False, "auto"):
            raise ConfigError(f"model.cost.on_demand={on_demand!r}: expected True, False or 'auto'")
        self.levels = levels
        self.radius = radius
        self.on_demand = on_demand
        self.out_channels = levels * (2 * radius + 1) ** 2

    @property
    def quadratic(self) -> bool:
        """Whether the volume may be stored however large it is."""
        return self.on_demand is False

    def forward(self, encoded: Encoded) -> CorrelationPyramid | FeaturePyramid:
        """Features N×C×h×w -> what the look-ups read; products are divided by sqrt(C)."""
        # Half precision overflows in the sums of the volume, so it stays in float32 (or float64) under autocast.
        dtype = torch.promote_types(encoded.feature1.dtype, torch.float32)
        with torch.autocast(encoded.feature1.device.type, enabled=False):
            query = encoded.feature1.to(dtype).permute(0, 2, 3, 1).flatten(1, 2) * encoded.feature1.shape[1] ** -0.5
            table, sizes = pool_levels(encoded.feature2.to(dtype), self.levels)
            if self._computes_on_demand(query, table):
                return FeaturePyramid(query, table, sizes)
            return CorrelationPyramid(batched_row_product(query, table), sizes)

    def lookup(self, cost: CorrelationPyramid | FeaturePyramid, flow: Tensor) -> Tensor:
        """Low-resolution flow N×2×h×w -> N×(L·(2r+1)²)×h×w."""
        with torch.autocast(flow.device.type, enabled=False):
            if isinstance(cost, FeaturePyramid):
                return corr_lookup_on_demand(cost.query, cost.table, cost.sizes, flow, self.radius)
            return corr_lookup(cost.volume, cost.sizes, flow, self.radius)

    def _computes_on_demand(self, query: Tensor, table: Tensor) -> bool:
        if self.on_demand != "auto":
            return bool(self.on_demand)
        trains = query.requires_grad or table.requires_grad
        on_cpu = query.device.type == "cpu"
        if on_cpu and not trains and _fast_on_demand():
            return True
        size = query.shape[0] * query.shape[1] * table.shape[1] * query.element_size()
        if trains:
            size *= 2  # the volume's gradient
        free = available_memory(query.device)
        if free is None or size < free / 4:
            return False
        print_log(
            f"The correlation volume would take {size / 2**30:.1f} GiB of {free / 2**30:.1f} GiB that are free: "
            "it is computed on demand (model.cost.on_demand)",
            logger="current",
        )
        return True
