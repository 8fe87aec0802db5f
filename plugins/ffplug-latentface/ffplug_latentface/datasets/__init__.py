"""Data sets of single faces; videos are :class:`ffplug_face.portraits.videos.FaceVideoDataset`."""

from ffplug_latentface.datasets.faces import CelebACropDataset, CelebALayout, LoadFace
from ffplug_latentface.datasets.lfw import LFWDataset, LFWLayout
from ffplug_latentface.datasets.rafdb import RAFDBDataset, RAFDBLayout

__all__ = ["CelebACropDataset", "CelebALayout", "LFWDataset", "LFWLayout", "LoadFace", "RAFDBDataset", "RAFDBLayout"]
