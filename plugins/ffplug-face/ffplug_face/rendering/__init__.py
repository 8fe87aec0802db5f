"""Pictures of meshes, with exact optical flow, depth, triangles and regions for every pixel."""

from ffplug_face.rendering.camera import Camera
from ffplug_face.rendering.geometry import (
    State,
    Surface,
    optical_flow,
    rasterize,
    vertex_normals,
    visible_in,
)
from ffplug_face.rendering.lighting import Light, random_light
from ffplug_face.rendering.picture import shade
from ffplug_face.rendering.skin import ProceduralSkin, Skin, SkinSource, UVSkin

__all__ = [
    "Camera",
    "Light",
    "ProceduralSkin",
    "Skin",
    "SkinSource",
    "State",
    "Surface",
    "UVSkin",
    "optical_flow",
    "random_light",
    "rasterize",
    "shade",
    "vertex_normals",
    "visible_in",
]
