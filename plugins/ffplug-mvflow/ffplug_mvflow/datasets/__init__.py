"""Compressed flow data: readers, transforms, and the builder."""

from ffplug_mvflow.datasets.compressed import CompressedFlowDataset, compress
from ffplug_mvflow.datasets.transforms import DropMotionVectors, EncodePair, LoadCompressedPair, PackMotionInputs

__all__ = [
    "CompressedFlowDataset",
    "DropMotionVectors",
    "EncodePair",
    "LoadCompressedPair",
    "PackMotionInputs",
    "compress",
]
