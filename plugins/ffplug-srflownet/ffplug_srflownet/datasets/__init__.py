"""Data sets and their layouts on disk."""

from ffplug_srflownet.datasets.online import GaussianSequenceDataset
from ffplug_srflownet.datasets.srflow import SRFlowCenterLayout, SRFlowDataset, SRFlowLayout

__all__ = ["GaussianSequenceDataset", "SRFlowCenterLayout", "SRFlowDataset", "SRFlowLayout"]
