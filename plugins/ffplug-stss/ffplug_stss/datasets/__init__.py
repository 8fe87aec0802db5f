"""What is on disk, and what is drawn."""

from ffplug_stss.datasets.layout import STSSLayout
from ffplug_stss.datasets.nss import NSSDataset, NSSLayout
from ffplug_stss.datasets.online import RenderedDataset
from ffplug_stss.datasets.records import (
    LoadRecord,
    PackSupersample,
    RandomCropPair,
    RandomMirror,
    RandomReshadingMask,
)
from ffplug_stss.datasets.released import STSSDataset

__all__ = [
    "LoadRecord",
    "NSSDataset",
    "NSSLayout",
    "PackSupersample",
    "RandomCropPair",
    "RandomMirror",
    "RandomReshadingMask",
    "RenderedDataset",
    "STSSDataset",
    "STSSLayout",
]
