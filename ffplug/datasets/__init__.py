"""Datasets, samplers and transforms."""

from ffplug.datasets.augmentation import ColorJitter, RAFTDenseAugment, RAFTSparseAugment, resize_sparse_flow
from ffplug.datasets.base import FlowDataset, ScannedDataset
from ffplug.datasets.chairs import FlyingChairsDataset
from ffplug.datasets.folder import FolderFlowDataset
from ffplug.datasets.formats import read_flow, read_image, read_mask, write_flow, write_image, write_mask
from ffplug.datasets.hd1k import HD1KDataset
from ffplug.datasets.kitti import KITTI2012Dataset, KITTI2015Dataset
from ffplug.datasets.mix import MixDataset
from ffplug.datasets.procedural import ProceduralFlowDataset, ProceduralStandIn
from ffplug.datasets.samplers import FlowSampler
from ffplug.datasets.seeding import SeededIndex, derive_seed, index_rng, sample_rng
from ffplug.datasets.sintel import SintelDataset
from ffplug.datasets.spring import SpringDataset
from ffplug.datasets.things import FlyingThings3DDataset, FlyingThings3DSubsetDataset
from ffplug.datasets.transforms import LoadFlowPair, PackFlowInputs

__all__ = [
    "ColorJitter",
    "FlowDataset",
    "FlowSampler",
    "FlyingChairsDataset",
    "FlyingThings3DDataset",
    "FlyingThings3DSubsetDataset",
    "FolderFlowDataset",
    "HD1KDataset",
    "KITTI2012Dataset",
    "KITTI2015Dataset",
    "LoadFlowPair",
    "MixDataset",
    "PackFlowInputs",
    "ProceduralFlowDataset",
    "ProceduralStandIn",
    "RAFTDenseAugment",
    "RAFTSparseAugment",
    "ScannedDataset",
    "SeededIndex",
    "SintelDataset",
    "SpringDataset",
    "derive_seed",
    "index_rng",
    "read_flow",
    "read_image",
    "read_mask",
    "resize_sparse_flow",
    "sample_rng",
    "write_flow",
    "write_image",
    "write_mask",
]
