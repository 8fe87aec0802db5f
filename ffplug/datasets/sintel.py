"""MPI Sintel (Butler et al., ECCV 2012)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from ffplug.datasets.base import FlowDataset, Problem, choose
from ffplug.datasets.layouts import join
from ffplug.errors import DataError, did_you_mean
from ffplug.registry import DATASETS

FRAMES = {
    **dict.fromkeys(("alley_1", "alley_2", "ambush_5", "ambush_7", "bamboo_1", "bamboo_2", "bandage_1"), 50),
    **dict.fromkeys(("bandage_2", "cave_2", "cave_4", "market_2", "market_5", "mountain_1", "shaman_2"), 50),
    **dict.fromkeys(("shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3"), 50),
    "ambush_2": 21,
    "ambush_4": 33,
    "ambush_6": 20,
    "market_6": 40,
}
"""Frames of each training scene."""

VALIDATION_SCENES = ("ambush_2", "bamboo_2", "cave_2", "market_2", "shaman_2", "temple_2")
"""The training scenes that are commonly kept for validation (ptlflow's choice)."""

TEST_PAIRS = 552


@DATASETS.register_module()
class SintelDataset(FlowDataset):
    """Sintel's consecutive frames, 1024×436, with dense flow, occlusion and invalid masks in the training part.

    Args:
        data_root: folder that holds ``training`` and ``test``.
        pipeline: transforms; None loads the pair and packs it.
        render: ``'clean'``, ``'final'`` or ``'both'`` passes (clean first).
        split: ``'all'`` training scenes, ``'val'`` = :data:`VALIDATION_SCENES`, ``'train'`` = all but these, or
            ``'test'`` (no ground truth).
        scenes: exactly these scenes, in place of the choice that ``split`` makes.
        **kwargs: see :class:`FlowDataset`.

    Example:
        dict(type="ffplug.SintelDataset", data_root="data/Sintel")
    """

    layout = "sintel"
    title = "Sintel"

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[Any] | None = None,
        *,
        render: str = "clean",
        split: str = "all",
        scenes: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.render = choose("render", render, ("clean", "final", "both"))
        self.split = choose("split", split, ("all", "train", "val", "test"))
        self.scenes = None if scenes is None else tuple(scenes)
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return "Sintel" if self.render == "both" else f"Sintel/{self.render}"

    @property
    def published_pairs(self) -> int | None:  # noqa: D102
        passes = 2 if self.render == "both" else 1
        if self.scenes is not None:
            known = all(scene in FRAMES for scene in self.scenes) and self.split != "test"
            return passes * sum(FRAMES[scene] - 1 for scene in self.scenes) if known else None
        if self.split == "test":
            return passes * TEST_PAIRS
        return passes * sum(frames - 1 for scene, frames in FRAMES.items() if self._in_split(scene))

    def _in_split(self, scene: str) -> bool:
        return self.split in ("all", "test") or (scene in VALIDATION_SCENES) == (self.split == "val")

    def _choose_scenes(self, found: list[str]) -> list[str]:
        if self.scenes is None:
            chosen = [scene for scene in found if self._in_split(scene)]
            if not chosen:
                raise DataError(
                    f"{self.data_root}: split={self.split!r} selects none of the scenes {', '.join(found)}; "
                    "choose them with scenes=[…]"
                )
            return chosen
        for scene in self.scenes:
            if scene not in found:
                near = did_you_mean(scene, found)
                raise DataError(f"{self.data_root}: no scene {scene!r} among {', '.join(found)}{near}")
        return list(self.scenes)

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pairs of consecutive frames, scene by scene."""
        part = "test" if self.split == "test" else "training"
        self.require(part)
        for render in ("clean", "final") if self.render == "both" else (self.render,):
            folder = self.require(f"{part}/{render}")
            for scene in self._choose_scenes(self.folders(folder)):
                yield from self._scan_scene(part, render, scene, problems)

    def _scan_scene(self, part: str, render: str, scene: str, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        frames = self.consecutive(join(part, render, scene), r"frame_(\d+)\.png", scene, problems)
        sides: dict[str, dict[int, str]] = {}
        if part == "training":
            flows = self.numbered(f"training/flow/{scene}", r"frame_(\d+)\.flo")
            for frame in frames[:-1]:
                if frame not in flows:
                    problems.append(
                        Problem(f"training/flow/{scene}/frame_{frame:04d}.flo", "this flow is missing", scene)
                    )
            sides = {
                mask: self.numbered(f"training/{folder}/{scene}", r"frame_(\d+)\.png")
                for mask, folder in (("occlusion", "occlusions"), ("invalid", "invalid"))
            }
        for frame, following in itertools.pairwise(frames):
            name = f"frame_{frame:04d}"
            yield self.pair(
                join(part, render, scene, f"{name}.png"),
                join(part, render, scene, f"frame_{following:04d}.png"),
                f"training/flow/{scene}/{name}.flo" if part == "training" else None,
                sequence=scene,
                frame=frame,
                sample_id=f"{render}/{scene}/{name}",
                dataset=f"Sintel/{render}",
                masks={
                    mask: f"training/{'occlusions' if mask == 'occlusion' else mask}/{scene}/{files[frame]}"
                    for mask, files in sides.items()
                    if frame in files
                },
            )
