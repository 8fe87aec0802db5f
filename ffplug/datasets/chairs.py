"""FlyingChairs (Dosovitskiy et al., ICCV 2015)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mmengine import fileio

from ffplug.datasets.base import FlowDataset, Problem, choose
from ffplug.datasets.layouts import join
from ffplug.errors import DataError
from ffplug.registry import DATASETS

SPLIT_FILES = ("FlyingChairs_train_val.txt", "chairs_split.txt")
PUBLISHED = {"all": 22872, "train": 22232, "val": 640}


@DATASETS.register_module()
class FlyingChairsDataset(FlowDataset):
    """FlyingChairs, 512×384, dense flow.

    Args:
        data_root: folder that holds ``data`` (``FlyingChairs_release``).
        pipeline: transforms; None loads the pair and packs it.
        split: ``'train'``, ``'val'`` or ``'all'``.
        split_file: text file whose line n tells of pair n: 1 = train, 2 = validation. None looks for
            ``FlyingChairs_train_val.txt`` or ``chairs_split.txt`` in the root and in ``data``.
        **kwargs: see :class:`FlowDataset`.

    Example:
        dict(type="ffplug.FlyingChairsDataset", data_root="data/FlyingChairs")
    """

    layout = "chairs"
    title = "FlyingChairs"

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[Any] | None = None,
        *,
        split: str = "train",
        split_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.split = choose("split", split, ("train", "val", "all"))
        self.split_file = split_file
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def published_pairs(self) -> int:  # noqa: D102
        return PUBLISHED[self.split]

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pairs of the split by their number."""
        self.require("data")
        kinds = {kind: self.numbered("data", rf"(\d+)_{kind}") for kind in (r"img1\.ppm", r"img2\.ppm", r"flow\.flo")}
        first, second, flow = kinds.values()
        numbers = sorted(set(first) | set(second) | set(flow))
        if not numbers:
            self.require("data/%05d_img1.ppm")
        chosen = self._chosen(numbers)
        for number in numbers:
            if number not in chosen:
                continue
            missing = [kind.replace("\\", "") for kind, files in kinds.items() if number not in files]
            problems.extend(Problem(f"data/{number:05d}_{kind}", "this file is missing", "data") for kind in missing)
            if not missing:
                yield self.pair(
                    *(join("data", files[number]) for files in (first, second, flow)),
                    sequence="data",
                    frame=number,
                    sample_id=f"{number:05d}",
                )

    def _chosen(self, numbers: list[int]) -> set[int]:
        if self.split == "all":
            return set(numbers)
        path = self._find_split_file()
        try:
            lines = fileio.get_text(path).split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: the split file cannot be read ({error})") from None
        if bad := next((n for n, line in enumerate(lines, 1) if line not in ("1", "2")), None):
            raise DataError(f"{path}: line {bad}: expected 1 (train) or 2 (validation), found {lines[bad - 1][:20]!r}")
        if len(lines) < numbers[-1]:
            raise DataError(f"{path}: expected a line for each of {numbers[-1]} pairs, found {len(lines)} lines")
        wanted = "1" if self.split == "train" else "2"
        return {number for number in numbers if lines[number - 1] == wanted}

    def _find_split_file(self) -> str:
        if self.split_file:
            return self.split_file
        candidates = [join(self.data_root, folder, name) for folder in ("", "data") for name in SPLIT_FILES]
        for path in candidates:
            if fileio.exists(path):
                return path
        raise DataError(
            f"{self.data_root}: no split file; put the set's {SPLIT_FILES[0]} (one line per pair, 1 = train, "
            "2 = validation) there, name it with split_file=, or take split='all'"
        )
