"""KITTI 2012 (Geiger et al., CVPR 2012) and KITTI 2015 (Menze and Geiger, CVPR 2015)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ffplug.datasets.base import FlowDataset, Problem, choose
from ffplug.datasets.layouts import join
from ffplug.registry import DATASETS


class _KITTIDataset(FlowDataset):
    """What both years share: pairs ``%06d_10``, ``%06d_11`` and sparse flow with and without occluded pixels."""

    image_folders: tuple[str, ...]
    published: dict[str, int]

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[Any] | None = None,
        *,
        split: str = "train",
        target: str = "occ",
        **kwargs: Any,
    ) -> None:
        self.split = choose("split", split, ("train", "test"))
        self.target = choose("target", target, ("occ", "noc"))
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def published_pairs(self) -> int:
        return self.published[self.split]

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pairs by their number."""
        part = "training" if self.split == "train" else "testing"
        folder = self.require(*(f"{part}/{name}" for name in self.image_folders))
        first, second = (self.numbered(folder, rf"(\d+)_{index}\.png") for index in (10, 11))
        truth: dict[str, dict[int, str]] = {}
        if part == "training":
            self.require(f"training/flow_{self.target}")
            truth = {
                name: self.numbered(f"training/{name}", r"(\d+)_10\.png")
                for name in ("flow_occ", "flow_noc", "obj_map")
            }
        target = f"flow_{self.target}"
        flows = truth.get(target, {})
        for number in sorted({*first, *second, *flows}):
            wanted = [(folder, first, 10), (folder, second, 11)] + [(f"training/{target}", flows, 10)] * bool(truth)
            missing = [(where, index) for where, files, index in wanted if number not in files]
            problems.extend(
                Problem(join(where, f"{number:06d}_{index}.png"), "this file is missing", f"{number:06d}")
                for where, index in missing
            )
            if missing:
                continue
            masks = {"valid_noc": "flow_noc", "foreground": "obj_map"}
            yield self.pair(
                join(folder, first[number]),
                join(folder, second[number]),
                join("training", target, flows[number]) if truth else None,
                sequence=f"{number:06d}",
                frame=10,
                sample_id=f"{number:06d}_10",
                masks={
                    mask: join("training", name, truth[name][number])
                    for mask, name in masks.items()
                    if number in truth.get(name, {})
                },
            )


@DATASETS.register_module()
class KITTI2015Dataset(_KITTIDataset):
    """KITTI 2015, about 1242×375, sparse flow, with object maps that tell foreground from background.

    Args:
        data_root: folder that holds ``training`` and ``testing``.
        pipeline: transforms; None loads the pair and packs it.
        split: ``'train'`` or ``'test'`` (no ground truth).
        target: ``'occ'`` = all pixels, ``'noc'`` = without those that leave the view.
        **kwargs: see :class:`FlowDataset`.

    Example:
        dict(type="ffplug.KITTI2015Dataset", data_root="data/KITTI2015")
    """

    layout = "kitti2015"
    title = "KITTI2015"
    image_folders = ("image_2",)
    published = {"train": 200, "test": 200}  # noqa: RUF012


@DATASETS.register_module()
class KITTI2012Dataset(_KITTIDataset):
    """KITTI 2012, about 1226×370, sparse flow; colour frames where they are there, else the grey ones.

    Args:
        data_root: folder that holds ``training`` and ``testing``.
        pipeline: transforms; None loads the pair and packs it.
        split: ``'train'`` or ``'test'`` (no ground truth).
        target: ``'occ'`` = all pixels, ``'noc'`` = without those that leave the view.
        **kwargs: see :class:`FlowDataset`.

    Example:
        dict(type="ffplug.KITTI2012Dataset", data_root="data/KITTI2012")
    """

    layout = "kitti2012"
    title = "KITTI2012"
    image_folders = ("colored_0", "image_0")
    published = {"train": 194, "test": 195}  # noqa: RUF012
