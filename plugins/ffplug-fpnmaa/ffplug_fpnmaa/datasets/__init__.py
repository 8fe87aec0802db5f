"""What is on disk: Aff-Wild2, AffectNet, ExpW, lists of one's own; labels that teachers wrote."""

from ffplug_fpnmaa.datasets.affectnet import AffectNetDataset
from ffplug_fpnmaa.datasets.affwild2 import AffWild2Dataset
from ffplug_fpnmaa.datasets.expw import ExpWDataset
from ffplug_fpnmaa.datasets.index import AffectIndexDataset, write_index
from ffplug_fpnmaa.datasets.layouts import AffectNetLayout, AffWild2Layout, ExpWLayout
from ffplug_fpnmaa.datasets.samplers import BalancedSampler
from ffplug_fpnmaa.datasets.transforms import FlipFace, LoadFace, PackAffect, ResizeFace

__all__ = [
    "AffWild2Dataset",
    "AffWild2Layout",
    "AffectIndexDataset",
    "AffectNetDataset",
    "AffectNetLayout",
    "BalancedSampler",
    "ExpWDataset",
    "ExpWLayout",
    "FlipFace",
    "LoadFace",
    "PackAffect",
    "ResizeFace",
    "write_index",
]
