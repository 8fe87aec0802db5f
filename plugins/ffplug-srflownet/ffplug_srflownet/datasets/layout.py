"""Writing the SRFlow layout, from procedural Gaussian heads or any other scenes of Gaussians."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ffplug_face.models.head import REGIONS
from mmengine import fileio
from torch import Tensor

from ffplug.datasets import write_flow, write_image
from ffplug.datasets.formats import write_mask
from ffplug.datasets.layouts import Layout, Part, join, read_json_object
from ffplug.errors import DataError
from ffplug.files import atomic_path
from ffplug_srflownet.datasets.srflow import INFO, NO_REGION, SPLITS, flow_folder
from ffplug_srflownet.heads import get_head, sequence_options
from ffplug_srflownet.registry import LAYOUTS
from ffplug_srflownet.scenes import SplatScene, head_scene

if TYPE_CHECKING:
    from ffplug_face.sequences import SequenceOptions

    from ffplug.datasets.procedural import Recipe

_HEAD = dict(type="ffplug_face.OpenHead")
_STRIDES = (1, 2)
"""Strides that procedural sets have flow of."""
_TURNS, _STEP = (1.5, 0.8, 0.6), 0.001
"""Standard deviations of a procedural head's turn (degrees) and of its move (metres), for each frame of a clip."""
_INVERSE_DEPTH_SCALE = 1.0
"""What 1/depth (1/m) is multiplied by; the published set's constant is not known."""


@LAYOUTS.register_module(name="srflow")
class SRFlowLayout(Layout):
    """How :class:`SRFlowDataset` lies on disk; procedural sets are Gaussian heads, a subject each, with ``ray`` flow.

    A subject of the test part has two clips. Strides 1 and 2, both directions, depth, regions and occlusion are written
    too. The options are those of :class:`~ffplug_face.sequences.SequenceOptions`, less frames and size.
    """

    title = "SRFlow"
    datasets = ("ffplug_srflownet.SRFlowDataset",)
    markers = ("train/scaled_inv_depth", INFO)
    expected = "{train,test}/{render,flow,mask}/SUBJECT/0000.{jpg,flo,jpg}"
    parts = (
        Part("train", "ffplug_srflownet.SRFlowDataset", dict(split="train"), needed=True),
        Part("test", "ffplug_srflownet.SRFlowDataset", dict(split="test")),
    )
    definition: ClassVar[str] = "ray"

    def lies_in(self, root: str) -> bool:
        """Whether a split has the three folders that the reader needs."""
        needed = ("render", "flow", "mask")
        return any(all(fileio.isdir(join(root, split, kind)) for kind in needed) for split in SPLITS)

    def options(self, difficulty: str, changes: dict[str, Any]) -> SequenceOptions:
        """What sequences are drawn from; the difficulty makes no difference."""
        return sequence_options(changes, frames=(2,), size=(16, 16))

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write one subject: its frames, masks, flows, occlusion, depth, regions and cameras."""
        lengths = _clip_lengths(recipe.frames) if subset else [recipe.frames]
        clips = []
        for clip, length in enumerate(lengths):
            drawn = dict(yaw_pitch_roll=tuple(length * turn for turn in _TURNS), translation=length * _STEP)
            options = sequence_options({**drawn, **recipe.options}, frames=(length,), size=recipe.size)
            clips.append(head_scene(get_head(_HEAD), recipe.seed, 4 * index + 2 * subset + clip, options))
        write_subject(folder / SPLITS[subset], f"{index + 1:03d}", clips, self.definition, _STRIDES)

    def finish(self, folder: Path, recipe: Recipe) -> None:
        """Write ``srflow.json``."""
        write_info(folder, self.definition, _STRIDES, head=_HEAD["type"])


@LAYOUTS.register_module(name="srflow-center")
class SRFlowCenterLayout(SRFlowLayout):
    """As ``srflow``, with the flow of the Gaussians' centres, as the paper describes it, in procedural sets."""

    definition = "center"


def write_subject(
    folder: Path, subject: str, clips: Sequence[SplatScene], definition: str = "ray", strides: Sequence[int] = (1, 2)
) -> int:
    """Write one subject in the layout of :class:`SRFlowDataset`, frame by frame; what is there is written over.

    Args:
        folder: of the split.
        subject: its name.
        clips: scenes that follow each other; no flow crosses from one to the next.
        definition: of the flow, see :mod:`ffplug_srflownet.scenes`.
        strides: write flow over so many frames, forward and backward.

    Returns:
        How many frames were written.
    """
    start, cameras, borders = 0, [], []
    for scene in clips:
        for frame in range(len(scene)):
            stem = f"{subject}/{start + frame:04d}"
            _write_frame(folder, stem, scene, frame)
            for stride in strides:
                for then, backward in ((frame + stride, False), (frame - stride, True)):
                    if not 0 <= then < len(scene):
                        continue
                    truth = scene.flow(frame, then, definition)
                    flow = truth.flow.permute(1, 2, 0).contiguous().numpy()
                    write_flow(folder / flow_folder(stride, backward) / f"{stem}.flo", flow)
                    if stride == 1 and not backward:
                        write_mask(folder / "occlusion" / f"{stem}.png", ~truth.visible.numpy())
                        depth = scene.frame(frame).depth
                        change = _inverse(depth + truth.depth_change, truth.mask) - _inverse(depth, truth.mask)
                        _write_array(folder / "scaled_inv_depth_change" / f"{stem}.npy", change)
            outside, inside = scene.view(frame).matrices()
            cameras.append(dict(intrinsics=inside.tolist(), extrinsics=outside.tolist()))
        borders.append([start, start + len(scene) - 1])
        start += len(scene)
    about = folder / "camera" / subject
    about.mkdir(parents=True, exist_ok=True)
    _write_json(about / "spirals.json", dict(frames=cameras))
    if len(clips) > 1:
        _write_json(about / "clip.json", dict(clips=borders))
    return start


def write_info(root: Path, definition: str, strides: Sequence[int], **more: Any) -> None:
    """Write a set's ``srflow.json``: how its flow is defined, and the units and constants of its files."""
    content = dict(
        flow_definition=definition,
        flow_strides=list(strides),
        flow_unit="pixels, x right, y down; 0 outside of the mask",
        depth_unit="metres along the camera's axis; 0 where there is nothing",
        inverse_depth_scale=_INVERSE_DEPTH_SCALE,
        extrinsics="world to camera; x right, y down, z forward",
        regions=list(REGIONS),
        **more,
    )
    _write_json(root / INFO, content)


def check_info(root: Path, definition: str, strides: Sequence[int]) -> None:
    """Raise :class:`DataError` where a set is at ``root`` whose flow is another one: a set has one definition."""
    there = read_json_object(str(root / INFO))
    if there is None:
        return
    wanted = dict(flow_definition=definition, flow_strides=list(strides))
    for name, value in wanted.items():
        if there.get(name) != value:
            raise DataError(f"{root / INFO}: the set's {name} is {there.get(name)}, not {value}: name another folder")


def _write_frame(folder: Path, stem: str, scene: SplatScene, frame: int) -> None:
    seen = scene.frame(frame)
    write_image(folder / "render" / f"{stem}.jpg", scene.image(frame))
    write_image(folder / "mask" / f"{stem}.jpg", seen.mask.numpy().astype(np.uint8) * 255)
    _write_array(folder / "depth" / f"{stem}.npy", seen.depth)
    _write_array(folder / "scaled_inv_depth" / f"{stem}.npy", _inverse(seen.depth, seen.mask))
    regions = scene.regions(frame)
    if regions is not None:
        labels = np.where(regions.numpy() < 0, NO_REGION, regions.numpy()).astype(np.uint8)
        write_image(folder / "region" / f"{stem}.png", labels)


def _inverse(depth: Tensor, mask: Tensor) -> Tensor:
    """Scaled inverse depth, 0 outside of the mask."""
    return (_INVERSE_DEPTH_SCALE / depth.clamp(min=1e-6)) * mask


def _clip_lengths(frames: int) -> list[int]:
    """Frames of the clips of a test subject: two of at least two, or one."""
    return [frames - frames // 2, frames // 2] if frames >= 4 else [frames]


def _write_array(path: Path, array: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path, sync=False) as temporary, open(temporary, "wb") as file:
        np.save(file, array.numpy())


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path, sync=False) as temporary:
        Path(temporary).write_text(json.dumps(content, indent=1) + "\n")
