"""Frames between frames: public sets as they lie on disk, and procedural scenes."""

from ffplug_ugsp.datasets.benchmarks import (
    MiddleburyInterpolationDataset,
    SNUFILMDataset,
    UCF101Dataset,
    X4KDataset,
    XiphDataset,
)
from ffplug_ugsp.datasets.high_speed import Adobe240Dataset, GoProDataset
from ffplug_ugsp.datasets.layouts import (
    Adobe240Layout,
    GoProLayout,
    MiddleburyInterpolationLayout,
    SNUFILMLayout,
    UCF101Layout,
    VimeoSeptupletLayout,
    VimeoTripletLayout,
    X4KLayout,
    XiphLayout,
)
from ffplug_ugsp.datasets.scenes import ProceduralTripletDataset, draw_scene, exact_triplet
from ffplug_ugsp.datasets.triplets import AugmentTriplet, LoadTriplet, PackTriplet, TripletDataset
from ffplug_ugsp.datasets.vimeo import VimeoSeptupletDataset, VimeoTripletDataset

__all__ = [
    "Adobe240Dataset",
    "Adobe240Layout",
    "AugmentTriplet",
    "GoProDataset",
    "GoProLayout",
    "LoadTriplet",
    "MiddleburyInterpolationDataset",
    "MiddleburyInterpolationLayout",
    "PackTriplet",
    "ProceduralTripletDataset",
    "SNUFILMDataset",
    "SNUFILMLayout",
    "TripletDataset",
    "UCF101Dataset",
    "UCF101Layout",
    "VimeoSeptupletDataset",
    "VimeoSeptupletLayout",
    "VimeoTripletDataset",
    "VimeoTripletLayout",
    "X4KDataset",
    "X4KLayout",
    "XiphDataset",
    "XiphLayout",
    "draw_scene",
    "exact_triplet",
]
