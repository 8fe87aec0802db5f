"""Procedural portraits: small pictures of faces of which everything is known.

Each portrait has an identity (12 numbers), 12 action units, an expression, valence and arousal, a view and a light, and
each picture its canonical depth and albedo and its own depth. Everything follows from a seed:

    from ffplug_face.portraits import PortraitOptions, draw_portraits, render_portraits

    faces = draw_portraits(seed=0, person=3, frames=32)              # what is shown: arrays of length 32
    faces.action_units, faces.expression, faces.affect, faces.view   # 32×12, 32, 32×2, 32×6
    pictures = render_portraits(faces, size=64)
    pictures.images, pictures.depth, pictures.albedo                 # 32×3×64×64 uint8, 32×64×64, 32×3×64×64
    video = draw_portraits(seed=0, person=3, frames=90, video=1, options=PortraitOptions(every=12))  # moves smoothly
"""

from ffplug_face.portraits.factors import (
    ACTION_UNITS,
    AFFECT,
    EXPRESSIONS,
    IDENTITY,
    PROTOTYPES,
    PortraitOptions,
    Portraits,
    draw_identity,
    draw_portraits,
)
from ffplug_face.portraits.rendering import BACKGROUND_DEPTH, Pictures, render_portraits
from ffplug_face.portraits.surface import face_maps

__all__ = [
    "ACTION_UNITS",
    "AFFECT",
    "BACKGROUND_DEPTH",
    "EXPRESSIONS",
    "IDENTITY",
    "PROTOTYPES",
    "Pictures",
    "PortraitOptions",
    "Portraits",
    "draw_identity",
    "draw_portraits",
    "face_maps",
    "render_portraits",
]
