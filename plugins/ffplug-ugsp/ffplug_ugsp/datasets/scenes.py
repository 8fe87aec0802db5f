"""Procedural frames between frames: layered scenes of the core at three times, with exact flow and occlusion."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ffplug.datasets.base import Problem, choose_all
from ffplug.datasets.procedural import Scene, SceneOptions, TextureSource, random_scene
from ffplug.datasets.procedural.motion import LayerMotion
from ffplug.errors import ConfigError
from ffplug_ugsp.datasets.triplets import Steps, TripletDataset
from ffplug_ugsp.registry import DATASETS

KINDS = ("moving", "background", "pan", "still")
"""All layers move; the background stands; all layers move together; nothing moves."""
_SUBSET = 3
"""Tells these scenes from those of procedural sets on disk and of the core's own data set."""


def draw_scene(
    seed: tuple[int, ...], size: tuple[int, int], options: SceneOptions, textures: TextureSource, kind: str = "moving"
) -> Scene:
    """Draw a scene of a kind, see :data:`KINDS`."""
    scene = random_scene(seed, size, options, textures)
    camera = scene.layers[0].motion
    layers = list(scene.layers)
    if kind == "background":
        layers[0] = dataclasses.replace(layers[0], motion=LayerMotion(camera.centre, camera.angle))
    if kind in ("pan", "still"):
        shift = dict(shift_x=camera.shift_x, shift_y=camera.shift_y) if kind == "pan" else {}
        for place, layer in enumerate(layers):
            motion = LayerMotion(layer.motion.centre, layer.motion.angle, **shift)
            layers[place] = dataclasses.replace(layer, motion=motion)
    return dataclasses.replace(scene, layers=tuple(layers))


def exact_triplet(scene: Scene, timestep: float, start: float = 0.0) -> dict[str, Any]:
    """Frames at ``start``, between, and one frame later, with exact truth of the one between.

    Returns:
        ``frame0``, ``target``, ``frame1`` H×W×3 uint8; ``flow_t0`` and ``flow_t1`` H×W×2; ``occluded`` H×W bool: what
        the frame between shows and one of the others does not.
    """
    middle = scene.view(start + timestep)
    flow0, hidden0 = scene.flow(middle, start)
    flow1, hidden1 = scene.flow(middle, start + 1)
    ends = (scene.view(start).image, scene.view(start + 1).image)
    return dict(
        frame0=ends[0], target=middle.image, frame1=ends[1], flow_t0=flow0, flow_t1=flow1, occluded=hidden0 | hidden1
    )


@DATASETS.register_module()
class ProceduralTripletDataset(TripletDataset):
    """Frames between frames of procedural scenes with exact flow and occlusion, rendered when they are asked for.

    Sample i depends on the arguments and i only, so two sets of one seed agree and those of two seeds share nothing.

    Args:
        length: number of samples.
        size: height and width in pixels, at least 16.
        seed: of the set, >= 0.
        kinds: what scenes there are, in turn: ``moving``, ``background`` (it stands, so that masks have something to
            prune), ``pan`` (all moves alike) and ``still`` (the frame must come out unchanged).
        any_timestep: draw the time of the frame between from 0.125 to 0.875; else it is the middle.
        difficulty: ``demo``, ``standard`` or ``hard``.
        textures: ``analytic``, ``pictures``, ``mixed`` or a folder with pictures of your own.
        options: fields of :class:`ffplug.datasets.procedural.SceneOptions` that differ from the difficulty's.
        pipeline: transforms; None packs the frames. ``LoadTriplet`` is left out: nothing is on disk.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Raises:
        ConfigError: an argument is out of its range.

    Example:
        dict(type="ffplug_ugsp.ProceduralTripletDataset", length=2, size=(32, 48))
    """

    title = "procedural scenes"
    default_pipeline = (dict(type="ffplug_ugsp.PackTriplet"),)

    def __init__(
        self,
        length: int = 1000,
        size: Sequence[int] = (256, 448),
        seed: int = 0,
        kinds: str | Sequence[str] = ("moving", "background"),
        any_timestep: bool = False,
        difficulty: str = "standard",
        textures: str = "analytic",
        options: Mapping[str, Any] | None = None,
        pipeline: Steps | None = None,
        **kwargs: Any,
    ) -> None:
        if length < 1 or seed < 0 or len(size) != 2 or min(size) < 16:
            raise ConfigError(
                f"length={length}, seed={seed}, size={tuple(size)}: expected at least 1, 0 and 16×16 pixels"
            )
        self.length, self.size, self.seed, self.any_timestep = length, tuple(size), seed, any_timestep
        self.kinds = choose_all("kinds", kinds, KINDS)
        self.options = SceneOptions.preset(difficulty, **(options or {}))
        self.textures = TextureSource(textures)
        steps = None if pipeline is None else [step for step in pipeline if not _loads(step)]
        super().__init__("procedural", steps, **kwargs)
        self._metainfo["procedural"] = True

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the samples by number."""
        for index in range(self.length):
            way = 0.5
            if self.any_timestep:
                way = float(np.random.default_rng([self.seed, _SUBSET, index]).integers(1, 8)) / 8
            kind = self.kinds[index % len(self.kinds)]
            sample_id = f"{self.seed}/{index:06d}"
            yield dict(
                sequence=f"{index:06d}", frame=index, sample_id=sample_id, timestep=way, kind=kind, dataset=self.name
            )

    def load_data_list(self) -> list[dict[str, Any]]:  # noqa: D102 (see the base class)
        return list(self.scan([]))

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:
        """Render a sample."""
        seed = (self.seed, _SUBSET, info["frame"])
        scene = draw_scene(seed, self.size, self.options, self.textures, info["kind"])
        return {**info, **exact_triplet(scene, info["timestep"]), "ori_shape": self.size}


def _loads(step: Any) -> bool:
    """Whether a pipeline's step is ``LoadTriplet``."""
    kind = step.get("type") if isinstance(step, dict) else type(step)
    return str(getattr(kind, "__name__", kind)).rsplit(".", 1)[-1] == "LoadTriplet"
