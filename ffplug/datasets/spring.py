"""Spring (Mehl et al., CVPR 2023)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from ffplug.datasets.base import FlowDataset, Problem, choose, choose_all
from ffplug.datasets.layouts import join
from ffplug.registry import DATASETS

CAMERAS = ("left", "right")
DIRECTIONS = ("FW", "BW")


@DATASETS.register_module()
class SpringDataset(FlowDataset):
    """Spring, frames of 1920×1080 and flow on the doubled grid of 3840×2160, measured in pixels of the frames.

    :class:`~ffplug.datasets.transforms.LoadFlowPair` takes every second row and column; with ``double=True`` it keeps
    the doubled grid as well, for the benchmark's own error (the least over the 2×2 values of a pixel).

    Args:
        data_root: folder that holds ``train`` and ``test``.
        pipeline: transforms; None loads the pair and packs it.
        split: ``'train'`` or ``'test'`` (no ground truth).
        cameras: ``'left'``, ``'right'`` or both.
        directions: ``'FW'`` (frame k to k + 1), ``'BW'`` (k to k - 1) or both.
        **kwargs: see :class:`FlowDataset`.

    Example:
        dict(type="ffplug.SpringDataset", data_root="data/Spring")
    """

    layout = "spring"
    title = "Spring"

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[Any] | None = None,
        *,
        split: str = "train",
        cameras: str | Sequence[str] = "left",
        directions: str | Sequence[str] = "FW",
        **kwargs: Any,
    ) -> None:
        self.split = choose("split", split, ("train", "test"))
        self.cameras = choose_all("cameras", cameras, CAMERAS)
        self.directions = choose_all("directions", directions, DIRECTIONS)
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def published_pairs(self) -> int | None:  # noqa: D102
        return 990 * len(self.cameras) * len(self.directions) if self.split == "test" else None

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pairs by camera, direction and scene."""
        self.require(self.split)
        scenes = self.folders(self.split)
        for camera in self.cameras:
            self.require(*(join(self.split, scene, f"frame_{camera}") for scene in scenes))
            for direction in self.directions:
                for scene in scenes:
                    yield from self._scan_scene(scene, camera, direction, problems)

    def _scan_scene(self, scene: str, camera: str, direction: str, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        base, kind = join(self.split, scene), f"flow_{direction}_{camera}"
        frames = self.consecutive(join(base, f"frame_{camera}"), rf"frame_{camera}_(\d+)\.png", scene, problems)
        flows = self.numbered(join(base, kind), rf"{kind}_(\d+)\.flo5")
        maps = {
            mask: (join(base, "maps", name), self.numbered(join(base, "maps", name), rf"{name}_(\d+)\.png"))
            for mask, name in {
                "occlusion": f"matchmap_{kind}",
                "detail": f"detailmap_{kind}",
                "nonrigid": f"rigidmap_{direction}_{camera}",
                "sky": f"skymap_{camera}",
            }.items()
        }
        for earlier, later in itertools.pairwise(frames):
            first, second = (earlier, later) if direction == "FW" else (later, earlier)
            flow = join(base, kind, f"{kind}_{first:04d}.flo5")
            if self.split == "train" and first not in flows:
                problems.append(Problem(flow, "this flow is missing", scene))
            yield self.pair(
                join(base, f"frame_{camera}", f"frame_{camera}_{first:04d}.png"),
                join(base, f"frame_{camera}", f"frame_{camera}_{second:04d}.png"),
                flow if self.split == "train" else None,
                sequence=scene,
                frame=first,
                sample_id=f"{scene}/{kind}/{first:04d}",
                masks={mask: join(folder, files[first]) for mask, (folder, files) in maps.items() if first in files},
                doubled=True,
            )
