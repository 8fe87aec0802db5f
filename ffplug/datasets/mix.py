"""Mixtures of data sets, as the published training stages use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset

from ffplug.errors import ConfigError
from ffplug.registry import DATASETS


@DATASETS.register_module()
class MixDataset(ConcatDataset):
    """Several data sets one after the other, each repeated a number of times (RAFT's multipliers).

    It is MMEngine's ``ConcatDataset`` of ``RepeatDataset`` whose parts may have different metainfo; the draw that a
    :class:`~ffplug.datasets.seeding.SeededIndex` carries reaches the part.

    Args:
        datasets: configs or data sets.
        times: how often to repeat each; None = once each.
        lazy_init: find the pairs at first use, not now.

    Example:
        dict(
            type="ffplug.MixDataset",
            datasets=[
                dict(type="ffplug.SintelDataset", data_root="data/Sintel"),
                dict(type="ffplug.KITTI2015Dataset", data_root="data/KITTI2015"),
            ],
            times=[100, 1],
        )
    """

    def __init__(
        self, datasets: Sequence[BaseDataset | dict], times: Sequence[int] | None = None, lazy_init: bool = False
    ) -> None:
        times = [1] * len(datasets) if times is None else list(times)
        if not datasets:
            raise ConfigError("MixDataset: datasets is empty; give at least one")
        if len(times) != len(datasets) or any(not isinstance(n, int) or n < 1 for n in times):
            raise ConfigError(
                f"MixDataset: times={times}: expected one whole number above 0 for each of {len(datasets)} data sets"
            )
        parts = [DATASETS.build(item) if isinstance(item, dict) else item for item in datasets]
        super().__init__(parts, lazy_init=True, ignore_keys=sorted({key for part in parts for key in part.metainfo}))
        self._metainfo = {
            "dataset": " + ".join(dict.fromkeys(str(part.metainfo.get("dataset")) for part in parts)),
            "procedural": any(part.metainfo.get("procedural", False) for part in parts),
        }
        self.times = times
        if not lazy_init:
            self.full_init()

    def full_init(self) -> None:
        """Find the pairs of every part."""
        if not self._fully_initialized:
            self.datasets = [
                RepeatDataset(part, n, lazy_init=True) if n > 1 else part
                for part, n in zip(self.datasets, self.times, strict=True)
            ]
        super().full_init()

    def __getitem__(self, idx: int) -> dict[str, Any]:
        self.full_init()
        return super().__getitem__(idx)
