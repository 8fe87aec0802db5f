"""Data sets, their layouts on disk, and transforms."""

from ffplug_srflownet.datasets.layout import SRFlowCenterLayout, SRFlowLayout, write_info, write_subject
from ffplug_srflownet.datasets.online import GaussianSequenceDataset
from ffplug_srflownet.datasets.srflow import SRFlowDataset
from ffplug_srflownet.datasets.transforms import LoadRegions, MaskedDenseAugment

__all__ = [
    "GaussianSequenceDataset",
    "LoadRegions",
    "MaskedDenseAugment",
    "SRFlowCenterLayout",
    "SRFlowDataset",
    "SRFlowLayout",
    "write_info",
    "write_subject",
]
