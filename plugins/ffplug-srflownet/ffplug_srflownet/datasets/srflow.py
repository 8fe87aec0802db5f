"""The SRFlow data: how they are read, recognised, checked, and written from procedural Gaussian heads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from mmengine import fileio

from ffplug.datasets import write_flow, write_image
from ffplug.datasets.base import FlowDataset, Problem, choose
from ffplug.datasets.formats import atomic_path, write_mask
from ffplug.datasets.layouts import Layout, Part, join, read_json_object
from ffplug.errors import ConfigError, DataError
from ffplug_srflownet.registry import DATASETS, LAYOUTS

if TYPE_CHECKING:
    from ffplug.datasets.procedural import Recipe

SPLITS = ("train", "test")
DIRECTIONS = ("forward", "backward", "both")
_INFO = "srflow.json"
_HEAD = dict(type="ffplug_face.OpenHead")
_STRIDES = (1, 2)
"""Strides that procedural sets have flow of."""
_TURNS, _STEP = (1.5, 0.8, 0.6), 0.001
"""Standard deviations of a procedural head's turn (degrees) and of its move (metres), for each frame of a clip."""


def check_strides(stride: int | Sequence[int], most: int | None = None) -> tuple[int, ...]:
    """Strides as a tuple of different numbers of at least 1 (and at most ``most``).

    Raises:
        ConfigError: they are not.
    """
    strides = (stride,) if isinstance(stride, int) else tuple(stride)
    if not strides or min(strides) < 1 or len(set(strides)) < len(strides) or max(strides) > (most or max(strides)):
        upper = f" to {most}" if most else " and above"
        raise ConfigError(f"stride={stride}: expected one or several different numbers of frames, 1{upper}")
    return strides


def flow_folder(stride: int, backward: bool) -> str:
    """Name of the folder with the flow of a stride and direction; the published set has ``flow`` alone."""
    return "flow" + ("_backward" if backward else "") + (f"_stride{stride}" if stride > 1 else "")


@DATASETS.register_module()
class SRFlowDataset(FlowDataset):
    """SRFlow (arXiv 2601.06479): facial flow from Gaussian splatting, with a mask of the person.

    The folders are those that the authors' repository announces, the rest is our reading:
    ``SPLIT/{render,flow,mask}/SUBJECT/0000.{jpg,flo,jpg}``, flow from a frame to the next, masks as JPEG, and
    ``SPLIT/camera/SUBJECT/clip.json`` where a subject has several clips: ``{"clips": [[first, last], ...]}``, the last
    frame included. Other strides and reversed pairs need flow of their own, in ``flow_stride2``, ``flow_backward``,
    ``flow_backward_stride2`` and so on: a composed or negated flow would not be theirs. Procedural sets have them for
    strides 1 and 2. Samples have ``gt_foreground`` and, of procedural pairs of stride 1 forward, ``gt_occlusion``.

    Args:
        data_root: folder that holds ``train`` and ``test``.
        pipeline: transforms; None loads the pair and packs it.
        split: ``'train'`` or ``'test'``.
        stride: how many frames apart a pair's two are; several give pairs of each.
        direction: ``'forward'``, ``'backward'`` or ``'both'``.
        mask_threshold: least value (0..255) of a mask's pixel that counts: JPEG rings.
        **kwargs: see :class:`ffplug.datasets.FlowDataset`.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: files are missing, or flow of a stride and direction is.

    Example:
        dict(type="ffplug_srflownet.SRFlowDataset", data_root="data/SRFlow", split="train")
    """

    layout = "srflow"
    title = "SRFlow"

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[Any] | None = None,
        *,
        split: str = "train",
        stride: int | Sequence[int] = 1,
        direction: str = "forward",
        mask_threshold: int = 128,
        **kwargs: Any,
    ) -> None:
        self.split = choose("split", split, SPLITS)
        self.strides = check_strides(stride)
        self.backward = {"forward": (False,), "backward": (True,), "both": (False, True)}[
            choose("direction", direction, DIRECTIONS)
        ]
        if not 1 <= mask_threshold <= 255:
            raise ConfigError(f"mask_threshold={mask_threshold}: expected 1..255")
        self.mask_threshold = mask_threshold
        super().__init__(data_root, pipeline, **kwargs)
        info = read_json_object(join(self.data_root, _INFO)) or {}
        self._metainfo["flow_definition"] = info.get("flow_definition", "unknown")

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return f"{self.title}/{self.split}"

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pairs by subject, stride and direction, in the order of their frames."""
        render = self.require(join(self.split, "render"))
        for stride in self.strides:
            for backward in self.backward:
                folder = join(self.split, flow_folder(stride, backward))
                if not fileio.isdir(join(self.data_root, folder)):
                    self.require(join(self.split, "flow"))
                    raise DataError(
                        f"{self.data_root}: {folder}/ is missing: the published set has flow from each frame to the "
                        "next alone; take stride=1, direction='forward', or write flow of this kind there"
                    )
        for subject in self.folders(render):
            frames = self.consecutive(join(render, subject), r"(\d+)\.(?:jpg|png)", subject, problems)
            names = self.numbered(join(render, subject), r"(\d+)\.(?:jpg|png)")
            clip_of = self._clips(subject, frames, problems)
            for stride in self.strides:
                for backward in self.backward:
                    yield from self._pairs(subject, names, clip_of, stride, backward, problems)

    def _pairs(
        self,
        subject: str,
        names: dict[int, str],
        clip_of: dict[int, int],
        stride: int,
        backward: bool,
        problems: list[Problem],
    ) -> Iterable[dict[str, Any]]:
        render, mask = (join(self.split, kind, subject) for kind in ("render", "mask"))
        flow = join(self.split, flow_folder(stride, backward), subject)
        occlusion = join(self.split, "occlusion", subject)
        flows, masks = set(self.files(flow)), self.numbered(mask, r"(\d+)\.(?:jpg|png)")
        hidden = set(self.files(occlusion)) if stride == 1 and not backward else set()
        for first in names:
            then = first - stride if backward else first + stride
            if then not in names or clip_of.get(first) is None or clip_of.get(first) != clip_of.get(then):
                continue
            stem = names[first].rsplit(".", 1)[0]
            files = {join(flow, f"{stem}.flo"): f"{stem}.flo" in flows, join(mask, f"{stem}.jpg"): first in masks}
            lacking = [path for path, there in files.items() if not there]
            problems.extend(Problem(path, "this file is missing", subject) for path in lacking)
            if lacking:
                continue
            found = {"foreground": join(mask, masks[first])}
            if f"{stem}.png" in hidden:
                found["occlusion"] = join(occlusion, f"{stem}.png")
            yield self.pair(
                join(render, names[first]),
                join(render, names[then]),
                join(flow, f"{stem}.flo"),
                sequence=subject,
                frame=first,
                sample_id=f"{self.split}/{subject}/{first:04d}-{then:04d}",
                masks=found,
                mask_above=self.mask_threshold - 1,
            )

    def _clips(self, subject: str, frames: Sequence[int], problems: list[Problem]) -> dict[int, int]:
        """The number of the clip that each frame belongs to; those of none have no pair."""
        path = join(self.split, "camera", subject, "clip.json")
        whole = join(self.data_root, path)
        if not fileio.exists(whole):
            return dict.fromkeys(frames, 0)
        clips = read_json_object(whole).get("clips")
        good = isinstance(clips, list) and all(
            isinstance(clip, list) and len(clip) == 2 and all(type(end) is int for end in clip) and clip[0] <= clip[1]
            for clip in clips
        )
        if not good:
            problems.append(Problem(path, 'expected {"clips": [[first, last], ...]} with numbers of frames', subject))
            return {}
        return {frame: k for k, (first, last) in enumerate(clips) for frame in frames if first <= frame <= last}


@LAYOUTS.register_module(name="srflow")
class SRFlowLayout(Layout):
    """How :class:`SRFlowDataset` lies on disk; procedural sets are Gaussian heads, a subject each, with ``ray`` flow.

    A subject of the test part has two clips. Strides 1 and 2, both directions, depth and occlusion are written too.
    """

    title = "SRFlow"
    datasets = ("ffplug_srflownet.SRFlowDataset",)
    markers = ("train/scaled_inv_depth", _INFO)
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

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write one subject: its frames, masks, flows, occlusion, depth and cameras."""
        from ffplug_face.sequences import SequenceOptions

        from ffplug_srflownet.datasets.heads import get_head
        from ffplug_srflownet.scenes import head_scene

        root, subject = folder / SPLITS[subset], f"{index + 1:03d}"
        lengths = _clip_lengths(recipe.frames) if subset else [recipe.frames]
        cameras, start = [], 0
        for clip, length in enumerate(lengths):
            turns = tuple(length * turn for turn in _TURNS)
            options = SequenceOptions((length,), recipe.size, yaw_pitch_roll=turns, translation=length * _STEP)
            scene = head_scene(get_head(_HEAD), recipe.seed, 4 * index + 2 * subset + clip, options)
            cameras += [scene.view(0).matrices()] * length
            for frame in range(length):
                stem = f"{subject}/{start + frame:04d}"
                seen = scene.frame(frame)
                write_image(root / "render" / f"{stem}.jpg", scene.image(frame))
                write_image(root / "mask" / f"{stem}.jpg", seen.mask.numpy().astype(np.uint8) * 255)
                _write_array(root / "depth" / f"{stem}.npy", seen.depth.numpy())
                for stride in _STRIDES:
                    for then, backward in ((frame + stride, False), (frame - stride, True)):
                        if not 0 <= then < length:
                            continue
                        truth = scene.flow(frame, then, self.definition)
                        flow = truth.flow.permute(1, 2, 0).contiguous().numpy()
                        write_flow(root / flow_folder(stride, backward) / f"{stem}.flo", flow)
                        if stride == 1 and not backward:
                            write_mask(root / "occlusion" / f"{stem}.png", ~truth.visible.numpy())
            start += length
        about = root / "camera" / subject
        about.mkdir(parents=True)
        frames = [dict(intrinsics=inside.tolist(), extrinsics=outside.tolist()) for outside, inside in cameras]
        (about / "spirals.json").write_text(json.dumps(dict(frames=frames), indent=1) + "\n")
        if subset:
            ends = np.cumsum(lengths)
            clips = [[int(end - length), int(end - 1)] for end, length in zip(ends, lengths, strict=True)]
            (about / "clip.json").write_text(json.dumps(dict(clips=clips)) + "\n")

    def finish(self, folder: Path, recipe: Recipe) -> None:
        """Write ``srflow.json``: how the flow is defined, and what else the files hold."""
        content = dict(
            flow_definition=self.definition,
            flow_strides=list(_STRIDES),
            flow_unit="pixels, x right, y down; 0 outside of the mask",
            depth_unit="metres along the camera's axis; 0 where there is nothing",
            extrinsics="world to camera; x right, y down, z forward",
            head=_HEAD["type"],
        )
        (folder / _INFO).write_text(json.dumps(content, indent=2) + "\n")


@LAYOUTS.register_module(name="srflow-center")
class SRFlowCenterLayout(SRFlowLayout):
    """As ``srflow``, with the flow of the Gaussians' centres, as the paper describes it, in procedural sets."""

    definition = "center"


def _clip_lengths(frames: int) -> list[int]:
    """Frames of the clips of a test subject: two of at least two, or one."""
    return [frames - frames // 2, frames // 2] if frames >= 4 else [frames]


def _write_array(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)
