"""FlyingThings3D (Mayer et al., CVPR 2016): the full set and the subset of DispNet/FlowNet2."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from mmengine import fileio

from ffplug.datasets.base import FlowDataset, Problem, choose, choose_all
from ffplug.datasets.layouts import join
from ffplug.errors import DataError
from ffplug.registry import DATASETS

DIRECTIONS = ("into_future", "into_past")
CAMERAS = ("left", "right")


class _ThingsDataset(FlowDataset):
    """What the full set and the subset share: passes, cameras and directions of time."""

    splits: tuple[str, ...]

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[Any] | None = None,
        *,
        render: str = "clean",
        split: str = "train",
        cameras: str | Sequence[str] = "left",
        directions: str | Sequence[str] = DIRECTIONS,
        **kwargs: Any,
    ) -> None:
        self.render = choose("render", render, ("clean", "final", "both"))
        self.split = choose("split", split, self.splits)
        self.cameras = choose_all("cameras", cameras, CAMERAS)
        self.directions = choose_all("directions", directions, DIRECTIONS)
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def name(self) -> str:
        return self.title if self.render == "both" else f"{self.title}/{self.render}"

    @property
    def renders(self) -> tuple[str, ...]:
        """The passes to read, clean first."""
        return ("clean", "final") if self.render == "both" else (self.render,)


@DATASETS.register_module()
class FlyingThings3DDataset(_ThingsDataset):
    """FlyingThings3D in full, 960×540, dense flow in both directions of time.

    Flow into the past leads from frame i + 1 to frame i. RAFT's recipe takes the left camera and both directions.

    Args:
        data_root: folder that holds ``frames_cleanpass``, ``frames_finalpass`` and ``optical_flow``.
        pipeline: transforms; None loads the pair and packs it.
        render: ``'clean'``, ``'final'`` or ``'both'``.
        split: ``'train'`` or ``'test'``.
        cameras: ``'left'``, ``'right'`` or both.
        directions: ``'into_future'``, ``'into_past'`` or both.
        exclude: text file naming sequences (``TRAIN/A/0023``) or frames (``TRAIN/A/0023/left/0007.png``) to leave
            out, one a line, such as the authors' list of unusable files.
        **kwargs: see :class:`FlowDataset`.

    Example:
        dict(type="ffplug.FlyingThings3DDataset", data_root="data/FlyingThings3D")
    """

    layout = "things"
    title = "FlyingThings3D"
    splits = ("train", "test")

    def __init__(
        self, data_root: str, pipeline: Sequence[Any] | None = None, *, exclude: str | None = None, **kwargs: Any
    ) -> None:
        self.exclude = exclude
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def published_pairs(self) -> int | None:  # noqa: D102
        sequences = {"train": 2239, "test": 437}[self.split]
        many = len(self.renders) * len(self.cameras) * len(self.directions)
        return None if self.exclude else 9 * sequences * many

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pairs by pass, camera, direction and sequence."""
        excluded = self._read_excluded()
        part = self.split.upper()
        for render in self.renders:
            images = self.require(f"frames_{render}pass/{part}")
            flows = self.require(f"optical_flow/{part}")
            sequences = [
                f"{letter}/{number}" for letter in self.folders(images) for number in self.folders(join(images, letter))
            ]
            for camera in self.cameras:
                for direction in self.directions:
                    for sequence in sequences:
                        if f"{part}/{sequence}" not in excluded:
                            yield from self._scan_sequence(
                                images, flows, sequence, camera, direction, render, excluded, problems
                            )

    def _scan_sequence(
        self,
        images: str,
        flows: str,
        sequence: str,
        camera: str,
        direction: str,
        render: str,
        excluded: set[str],
        problems: list[Problem],
    ) -> Iterable[dict[str, Any]]:
        folder = join(images, sequence, camera)
        flow_folder = join(flows, sequence, direction, camera)
        word, letter = ("IntoFuture" if direction == "into_future" else "IntoPast"), camera[0].upper()
        frames = self.consecutive(folder, r"(\d+)\.png", f"{sequence}/{camera}", problems)
        found = self.numbered(flow_folder, rf"OpticalFlow{word}_(\d+)_{letter}\.pfm")
        for earlier, later in itertools.pairwise(frames):
            first, second = (earlier, later) if direction == "into_future" else (later, earlier)
            flow = join(flow_folder, f"OpticalFlow{word}_{first:04d}_{letter}.pfm")
            if first not in found:
                problems.append(Problem(flow, "this flow is missing", f"{sequence}/{camera}"))
            if any(
                f"{self.split.upper()}/{sequence}/{camera}/{frame:04d}.png" in excluded for frame in (first, second)
            ):
                continue
            yield self.pair(
                join(folder, f"{first:04d}.png"),
                join(folder, f"{second:04d}.png"),
                flow,
                sequence=f"{sequence}/{camera}",
                frame=first,
                sample_id=f"{render}/{sequence}/{camera}/{direction}/{first:04d}",
                dataset=f"FlyingThings3D/{render}",
            )

    def _read_excluded(self) -> set[str]:
        if not self.exclude:
            return set()
        try:
            lines = fileio.get_text(self.exclude).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.exclude}: the list of files to leave out cannot be read ({error})") from None
        return {line.strip().strip("/") for line in lines if line.strip()}


@DATASETS.register_module()
class FlyingThings3DSubsetDataset(_ThingsDataset):
    """The subset of FlyingThings3D, 960×540: numbers run through, and a gap in the flows starts a new sequence.

    Args:
        data_root: folder that holds ``train`` and ``val``.
        pipeline: transforms; None loads the pair and packs it.
        render: ``'clean'``, ``'final'`` or ``'both'``.
        split: ``'train'`` or ``'val'``.
        cameras: ``'left'``, ``'right'`` or both.
        directions: ``'into_future'`` (frame k to k + 1), ``'into_past'`` (k to k - 1) or both.
        **kwargs: see :class:`FlowDataset`.

    Example:
        dict(type="ffplug.FlyingThings3DSubsetDataset", data_root="data/FlyingThings3D_subset")
    """

    layout = "things-subset"
    title = "FlyingThings3D-subset"
    splits = ("train", "val")

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pairs by pass, camera, direction and number."""
        for render in self.renders:
            for camera in self.cameras:
                folder = self.require(f"{self.split}/image_{render}/{camera}")
                images = self.numbered(folder, r"(\d+)\.png")
                for direction in self.directions:
                    yield from self._scan_direction(render, camera, direction, folder, images, problems)

    def _scan_direction(
        self, render: str, camera: str, direction: str, folder: str, images: dict[int, str], problems: list[Problem]
    ) -> Iterable[dict[str, Any]]:
        flow_folder = self.require(f"{self.split}/flow/{camera}/{direction}")
        mask_folder = f"{self.split}/flow_occlusions/{camera}/{direction}"
        flows = self.numbered(flow_folder, r"(\d+)\.flo")
        masks = self.numbered(mask_folder, r"(\d+)\.png")
        step = 1 if direction == "into_future" else -1
        sequence, previous = 0, None
        for frame, flow in flows.items():
            sequence += previous is not None and frame != previous + 1
            previous = frame
            missing = [number for number in (frame, frame + step) if number not in images]
            problems.extend(
                Problem(join(folder, f"{number:07d}.png"), "this frame is missing", f"{render}/{camera}")
                for number in missing
            )
            if not missing:
                yield self.pair(
                    join(folder, images[frame]),
                    join(folder, images[frame + step]),
                    join(flow_folder, flow),
                    sequence=f"{camera}/{direction}/{sequence:04d}",
                    frame=frame,
                    sample_id=f"{render}/{camera}/{direction}/{frame:07d}",
                    dataset=f"FlyingThings3D-subset/{render}",
                    masks={"occlusion": join(mask_folder, masks[frame])} if frame in masks else None,
                )
