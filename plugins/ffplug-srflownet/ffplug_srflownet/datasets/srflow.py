"""The SRFlow data: how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mmengine import fileio

from ffplug.datasets.base import FlowDataset, Problem, choose
from ffplug.datasets.layouts import join, read_json_object
from ffplug.errors import ConfigError, DataError
from ffplug_srflownet.registry import DATASETS

SPLITS = ("train", "test")
DIRECTIONS = ("forward", "backward", "both")
INFO = "srflow.json"
"""Says of a set how its flow is defined, and in which units and constants the other files are."""

NO_REGION = 255
"""The label in ``region/`` of what is not the person."""


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
    strides 1 and 2. Samples have ``gt_foreground`` and, of procedural pairs of stride 1 forward, ``gt_occlusion``;
    :class:`LoadRegions` adds masks of regions where the set has them. The metainfo ``flow_definition`` is that of
    ``srflow.json``, or ``unknown``.

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
        info = read_json_object(join(self.data_root, INFO)) or {}
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
        region = join(self.split, "region", subject)
        labelled = set(self.files(region))
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
            pair = self.pair(
                join(render, names[first]),
                join(render, names[then]),
                join(flow, f"{stem}.flo"),
                sequence=subject,
                frame=first,
                sample_id=f"{self.split}/{subject}/{first:04d}-{then:04d}",
                masks=found,
                mask_above=self.mask_threshold - 1,
            )
            yield dict(pair, region_path=join(region, f"{stem}.png") if f"{stem}.png" in labelled else None)

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:  # noqa: D102 (see the base class)
        if info["region_path"] is not None:
            info["region_path"] = join(self.data_root, info["region_path"])
        return super().resolve(info)

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
