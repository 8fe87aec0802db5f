"""Procedural scenes on the fly, as a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ffplug.datasets.base import FlowDataset, Problem, choose
from ffplug.datasets.procedural.options import REFERENCE_SIZE, SceneOptions
from ffplug.datasets.procedural.scene import random_scene
from ffplug.datasets.procedural.textures import TextureSource
from ffplug.datasets.transforms import LoadFlowPair
from ffplug.errors import ConfigError
from ffplug.registry import DATASETS

_SUBSET = 2
"""Tells the scenes of this dataset from those of procedural sets on disk, which use 0 and 1."""


@DATASETS.register_module()
class ProceduralFlowDataset(FlowDataset):
    """Random layered scenes with exact dense flow and occlusion, rendered when they are asked for.

    Pair i depends on the arguments and i only, so two datasets of one seed agree and those of two seeds share nothing.

    Args:
        length: number of scenes; one pair each (two with ``render='both'``).
        size: height and width in pixels, at least 16.
        seed: seed of the set, >= 0.
        render: ``'clean'``, ``'final'`` (motion blur, fog, noise) or ``'both'`` (clean first).
        difficulty: ``'demo'``, ``'standard'`` or ``'hard'``; see :data:`~ffplug.datasets.procedural.options.PRESETS`.
        textures: ``'analytic'``, ``'pictures'``, ``'mixed'`` or a folder with pictures of your own.
        options: fields of :class:`~ffplug.datasets.procedural.options.SceneOptions` that differ from the difficulty's.
        pipeline: transforms; None packs the pair. ``LoadFlowPair`` is left out: nothing is on disk.
        **kwargs: see :class:`FlowDataset`.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: ``textures`` names a folder without pictures.
    """

    title = "procedural scenes"

    def __init__(
        self,
        length: int = 1000,
        size: Sequence[int] = REFERENCE_SIZE,
        seed: int = 0,
        render: str = "clean",
        difficulty: str = "standard",
        textures: str = "mixed",
        options: dict[str, Any] | None = None,
        pipeline: Sequence[dict | Callable] | None = None,
        **kwargs: Any,
    ) -> None:
        self.render = choose("render", render, ("clean", "final", "both"))
        if length < 1 or seed < 0:
            raise ConfigError(f"length={length}, seed={seed}: expected length >= 1 and seed >= 0")
        if len(size) != 2 or min(size) < 16:
            raise ConfigError(f"size={tuple(size)}: expected height and width of at least 16 pixels")
        self.length, self.size, self.seed = length, tuple(size), seed
        self.options = SceneOptions.preset(difficulty, **(options or {}))
        self.textures = TextureSource(textures)
        steps = [dict(type="ffplug.PackFlowInputs")] if pipeline is None else [s for s in pipeline if not _loads(s)]
        super().__init__("procedural", steps, **kwargs)
        self._metainfo["procedural"] = True

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return self.title if self.render == "both" else f"{self.title}/{self.render}"

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pairs by pass and number."""
        for render in ("clean", "final") if self.render == "both" else (self.render,):
            for index in range(self.length):
                yield dict(
                    self.pair(
                        None,
                        None,
                        sequence=f"{index:06d}",
                        frame=0,
                        sample_id=f"{render}/{self.seed}/{index:06d}",
                        dataset=f"{self.title}/{render}",
                    ),
                    render=render,
                    scene=index,
                )

    def load_data_list(self) -> list[dict[str, Any]]:  # noqa: D102 (see the base class)
        return list(self.scan([]))

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Render a pair: frames, flow, valid, occlusion, foreground (all but the background) and the metainfo."""
        info = super().get_data_info(idx)
        scene = random_scene((self.seed, _SUBSET, info.pop("scene")), self.size, self.options, self.textures)
        first, second = scene.view(0), scene.view(1)
        flow, occluded = scene.flow(first, 1)
        final = info.pop("render") == "final"
        info.update(
            img1=scene.finish(first) if final else first.image,
            img2=scene.finish(second) if final else second.image,
            flow=flow,
            valid=np.ones(self.size, np.float32),
            occlusion=occluded,
            foreground=first.layer > 0,
            ori_shape=self.size,
        )
        return info


def _loads(step: dict | Callable) -> bool:
    """Whether a pipeline's step is ``LoadFlowPair``."""
    if isinstance(step, dict):
        kind = step.get("type")
        return kind is LoadFlowPair or str(kind).rsplit(".", 1)[-1] == LoadFlowPair.__name__
    return isinstance(step, LoadFlowPair)
