"""Procedural scenes with exact flow and occlusion: on the fly, on disk, and as a stand-in for missing data."""

from ffplug.datasets.procedural.dataset import ProceduralFlowDataset
from ffplug.datasets.procedural.options import PRESETS, SceneOptions
from ffplug.datasets.procedural.scene import Scene, View, random_scene
from ffplug.datasets.procedural.stand_in import ProceduralStandIn
from ffplug.datasets.procedural.textures import TextureSource
from ffplug.datasets.procedural.writers import Recipe, write_procedural

__all__ = [
    "PRESETS",
    "ProceduralFlowDataset",
    "ProceduralStandIn",
    "Recipe",
    "Scene",
    "SceneOptions",
    "TextureSource",
    "View",
    "random_scene",
    "write_procedural",
]
