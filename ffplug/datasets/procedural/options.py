"""What random scenes are drawn from: numbers of shapes, speeds, and the final pass, in three difficulties."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ffplug.errors import ConfigError, did_you_mean

REFERENCE_SIZE = (128, 160)
"""Frame size for which the speeds of :class:`SceneOptions` are given; they grow with the root of the area."""


@dataclass(frozen=True)
class SceneOptions:
    """What scenes are drawn from. Speeds are pixels per frame at a frame of 128×160, and scale with its side.

    Args:
        layers: least and greatest number of shapes before the background.
        speed: least and greatest peak speed of a scene's layers; each scene draws its own, evenly on a log scale.
        camera: speed of the background, and of all layers by parallax, as a share of the scene's speed.
        rotation: greatest rotation in degrees per frame.
        zoom: greatest change of scale per frame, as a fraction.
        perspective: motion at a layer's rim by tilting out of the image plane, as a share of the scene's speed.
        elastic: motion by elastic deformation, as a share of the scene's speed.
        size: least and greatest radius of shapes, as a share of the frame's shorter side.
        shutter: share of a frame's time that the final pass blurs over.
        fog: greatest opacity of the fog in the final pass.
        noise: greatest standard deviation, in grey levels, of the noise in the final pass.
    """

    layers: tuple[int, int] = (4, 8)
    speed: tuple[float, float] = (1.5, 16.0)
    camera: float = 0.6
    rotation: float = 4.0
    zoom: float = 0.03
    perspective: float = 0.4
    elastic: float = 0.3
    size: tuple[float, float] = (0.12, 0.34)
    shutter: float = 0.5
    fog: float = 0.5
    noise: float = 4.0

    @classmethod
    def preset(cls, difficulty: str = "standard", **changes: object) -> SceneOptions:
        """Return the options of a difficulty ('demo', 'standard' or 'hard'), with single fields changed."""
        if difficulty not in PRESETS:
            near = did_you_mean(difficulty, PRESETS)
            raise ConfigError(f"difficulty={difficulty!r}: expected one of {', '.join(PRESETS)}{near}")
        known = [field.name for field in dataclasses.fields(cls)]
        for name in changes:
            if name not in known:
                near = did_you_mean(name, known)
                raise ConfigError(f"scene option {name!r} is unknown: expected one of {', '.join(known)}{near}")
        return dataclasses.replace(PRESETS[difficulty], **changes)


PRESETS = {
    "demo": SceneOptions(layers=(3, 5), speed=(5.0, 11.0), camera=0.8, rotation=2.0, zoom=0.02, perspective=0.2,
                         elastic=0.15, size=(0.2, 0.4), fog=0.3, noise=2.0),
    "standard": SceneOptions(),
    "hard": SceneOptions(layers=(7, 14), speed=(2.0, 30.0), rotation=10.0, zoom=0.05, elastic=0.5, size=(0.06, 0.34),
                         shutter=0.8, fog=0.7, noise=8.0),
}  # fmt: skip
"""Options by difficulty."""
