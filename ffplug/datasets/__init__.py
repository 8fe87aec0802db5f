"""Datasets, samplers and transforms of optical flow."""

from ffplug.datasets.samplers import FlowSampler
from ffplug.datasets.seeding import SeededIndex, derive_seed, index_rng, sample_rng

__all__ = ["FlowSampler", "SeededIndex", "derive_seed", "index_rng", "sample_rng"]
