"""Frames whose inputs are made when they are asked for, and those of procedural scenes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as List
from typing import Any, Protocol

import numpy as np

from ffplug.datasets.base import Problem, ScannedDataset
from ffplug.errors import ConfigError
from ffplug_stss.datasets.layout import FIRST
from ffplug_stss.registry import DATASETS
from ffplug_stss.rendering import Renderer
from ffplug_stss.scenes import SceneOptions, draw_scene
from ffplug_stss.sequences import Sequence


class Source(Protocol):
    """A sequence that makes its frames' records and true frames; see :mod:`ffplug_stss.datasets.records`."""

    def record(self, frame: int) -> np.ndarray:
        """The inputs of a frame."""

    def target(self, frame: int) -> np.ndarray:
        """The true frame."""


class MadeDataset(ScannedDataset):
    """Frames whose records are on no disk; subclasses open a sequence, and name it in their entries' ``source``.

    Args:
        data_root: see :class:`ffplug.datasets.ScannedDataset`.
        pipeline: transforms; None packs whole frames. ``LoadRecord`` is left out: there is nothing to load.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.
    """

    noun = "frames"
    default_pipeline = (dict(type="ffplug_stss.PackSupersample"),)

    def __init__(self, data_root: str, pipeline: List[dict | Callable] | None = None, **kwargs: Any) -> None:
        self.sequence = functools.lru_cache(maxsize=4)(self.open)
        steps = self.default_pipeline if pipeline is None else pipeline
        super().__init__(data_root, [self.make, *(step for step in steps if not _loads(step))], **kwargs)

    def open(self, source: Any) -> Source:
        """The sequence of this name; the last four are kept."""
        raise NotImplementedError

    def make(self, info: dict[str, Any]) -> dict[str, Any]:
        """Add a frame's ``record`` and ``target``: the first step of the pipeline."""
        sequence = self.sequence(info["source"])
        return {**info, "record": sequence.record(info["frame"]), "target": sequence.target(info["frame"])}

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:  # noqa: D102 (see the base class)
        return info

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "sequence"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.sequence = functools.lru_cache(maxsize=4)(self.open)


@DATASETS.register_module()
class RenderedDataset(MadeDataset):
    """Frames of procedural scenes with exact vectors and holes; nothing is on disk.

    Sample i is a frame of a scene, both of which follow from the arguments and i only, so two sets of one seed agree
    and those of two seeds share nothing. Samples are what :class:`STSSDataset` reads of a written set.

    Args:
        scenes: number of scenes.
        frames: frames of each, shaded and extrapolated in turn.
        size: height and width of the low resolution.
        seed: of the set, >= 0.
        difficulty: ``demo``, ``standard`` or ``hard``.
        options: fields of :class:`ffplug_stss.scenes.SceneOptions` that differ from the difficulty's.
        device: where scenes are rendered; a GPU needs ``num_workers=0``, or workers that are spawned.
        pipeline: transforms; None packs whole frames. ``LoadRecord`` is left out: nothing is on disk.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Raises:
        ConfigError: an argument is out of its range.

    Example:
        dict(type="ffplug_stss.RenderedDataset", scenes=1, frames=2, size=(16, 24))
    """

    title = "rendered scenes"

    def __init__(
        self,
        scenes: int = 100,
        frames: int = 8,
        size: List[int] = (136, 240),
        seed: int = 0,
        difficulty: str = "standard",
        options: Mapping[str, Any] | None = None,
        device: str = "cpu",
        pipeline: List[dict | Callable] | None = None,
        **kwargs: Any,
    ) -> None:
        if scenes < 1 or frames < 1 or seed < 0:
            raise ConfigError(f"scenes={scenes}, frames={frames}, seed={seed}: expected at least 1, 1 and 0")
        self.count, self.frames, self.size, self.seed, self.device = scenes, frames, tuple(size), seed, device
        self.options = SceneOptions.preset(difficulty, **(options or {}))
        super().__init__("procedural", pipeline, **kwargs)
        self._metainfo.update(procedural=True)

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the frames, scene by scene."""
        for scene in range(self.count):
            for frame in range(FIRST, FIRST + self.frames):
                yield dict(
                    dataset=self.name,
                    sequence=f"{scene:04d}",
                    frame=frame,
                    sample_id=f"{self.seed}/{scene:04d}/{frame:04d}",
                    kind=Sequence.kind(frame),
                    source=scene,
                )

    def load_data_list(self) -> list[dict[str, Any]]:  # noqa: D102 (see the base class)
        return list(self.scan([]))

    def open(self, source: int) -> Sequence:
        """The scene of this number."""
        return Sequence(Renderer(draw_scene(self.seed, source, self.options, self.device), self.size))


def _loads(step: dict | Callable) -> bool:
    """Whether a pipeline's step is ``LoadRecord``."""
    kind = step.get("type") if isinstance(step, dict) else type(step)
    return str(getattr(kind, "__name__", kind)).rsplit(".", 1)[-1] == "LoadRecord"
