"""HD1K (Kondermann et al., CVPR workshops 2016)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from ffplug.datasets.base import FlowDataset, Problem, choose
from ffplug.datasets.layouts import join
from ffplug.registry import DATASETS


@DATASETS.register_module()
class HD1KDataset(FlowDataset):
    """HD1K, 2560×1080, sparse flow in KITTI's format.

    Args:
        data_root: folder that holds ``hd1k_input`` and ``hd1k_flow_gt`` (and ``hd1k_challenge``).
        pipeline: transforms; None loads the pair and packs it.
        split: ``'train'`` or ``'test'`` (no ground truth).
        **kwargs: see :class:`FlowDataset`.

    Example:
        dict(type="ffplug.HD1KDataset", data_root="data/HD1K")
    """

    layout = "hd1k"
    title = "HD1K"

    def __init__(
        self, data_root: str, pipeline: Sequence[Any] | None = None, *, split: str = "train", **kwargs: Any
    ) -> None:
        self.split = choose("split", split, ("train", "test"))
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def published_pairs(self) -> int | None:  # noqa: D102
        return 1047 if self.split == "train" else None

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pairs of consecutive frames, sequence by sequence."""
        folder = self.require("hd1k_input/image_2" if self.split == "train" else "hd1k_challenge/image_2")
        flow_folder = self.require("hd1k_flow_gt/flow_occ") if self.split == "train" else None
        flows = set(self.files(flow_folder)) if flow_folder else set()
        sequences = sorted({name.split("_")[0] for name in self.files(folder) if name.endswith(".png")})
        for sequence in sequences:
            frames = self.consecutive(folder, rf"{sequence}_(\d+)\.png", sequence, problems)
            for frame, following in itertools.pairwise(frames):
                name = f"{sequence}_{frame:04d}.png"
                if flow_folder and name not in flows:
                    problems.append(Problem(join(flow_folder, name), "this flow is missing", sequence))
                yield self.pair(
                    join(folder, name),
                    join(folder, f"{sequence}_{following:04d}.png"),
                    join(flow_folder, name) if flow_folder else None,
                    sequence=sequence,
                    frame=frame,
                    sample_id=name.removesuffix(".png"),
                )
