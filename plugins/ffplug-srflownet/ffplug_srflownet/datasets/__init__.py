"""Data sets and their layouts on disk."""

from ffplug_srflownet.datasets.pairs import PairsDataset, PairsLayout

__all__ = ["PairsDataset", "PairsLayout"]
