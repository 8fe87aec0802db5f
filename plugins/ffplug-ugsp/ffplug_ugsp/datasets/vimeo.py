"""Vimeo90K: triplets for training and testing, and septuplets for any time between two frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mmengine import fileio

from ffplug.datasets.base import Problem, choose
from ffplug.datasets.layouts import explain_root, join
from ffplug.errors import DataError
from ffplug_ugsp.datasets.packing import SUFFIX
from ffplug_ugsp.datasets.triplets import FLOWS, Steps, TripletDataset
from ffplug_ugsp.labels import FILES
from ffplug_ugsp.registry import DATASETS


class VimeoDataset(TripletDataset):
    """What both sets of Vimeo90K share: lists of folders below ``sequences``."""

    lists: tuple[str, str]

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        labels: str | None = None,
        pipeline: Steps | None = None,
        **kwargs: Any,
    ) -> None:
        self.split = choose("split", split, ("train", "validation", "all", "test"))
        self.labels = labels
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return f"{self.title}/{self.split}"

    def listed(self) -> list[str]:
        """The folders of the split: the training list's first 95 %, its rest, all of it, or the test list."""
        self.require("sequences")
        path = join(self.data_root, self.lists[self.split == "test"])
        if not fileio.exists(path):
            raise DataError(explain_root(self.data_root, self.layout, self.lists[self.split == "test"]))
        try:
            lines = fileio.get_text(path).split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: the list cannot be read ({error})") from None
        part = int(0.95 * len(lines))
        return {"train": lines[:part], "validation": lines[part:]}.get(self.split, lines)


@DATASETS.register_module()
class VimeoTripletDataset(VimeoDataset):
    """Vimeo90K's triplets, 448×256 pixels: ``im2.png`` is the frame between ``im1.png`` and ``im3.png``.

    ``sequences/00001/0001/im1.png`` and so on, ``tri_trainlist.txt`` and ``tri_testlist.txt``. Flow that you made, in
    ``flow/00001/0001/flow_t0.flo`` (to im1) and ``flow_t1.flo`` (to im3), is read where it is.

    Args:
        data_root: the folder ``vimeo_triplet``.
        split: ``train``, the first 95 % of the training list; ``validation``, its rest; ``all`` of it; or ``test``.
        labels: folder, absolute or below ``data_root``, with UGSP's labels in the frames' tree:
            ``00001/0001/guide_mask_3.png`` for 1/8, ``_1`` for 1/4, ``_2`` for 1/2 of the resolution. None reads none.
        packed: folder, likewise, with the frames as arrays, which ``ffplug pack-triplets`` makes: nothing has to
            be decompressed. None reads the pictures.
        pipeline: transforms; None loads and packs whole frames.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Example:
        dict(type="ffplug_ugsp.VimeoTripletDataset", data_root="data/vimeo_triplet")
    """

    layout = "vimeo-triplet"
    title = "Vimeo90K"
    lists = ("tri_trainlist.txt", "tri_testlist.txt")

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        labels: str | None = None,
        packed: str | None = None,
        pipeline: Steps | None = None,
        **kwargs: Any,
    ) -> None:
        self.packed = packed
        super().__init__(data_root, split, labels, pipeline, **kwargs)

    @property
    def published_pairs(self) -> int | None:
        """As the published test lists are; training lists differ by one."""
        return 3782 if self.split == "test" else None

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the listed triplets."""
        for number, name in enumerate(self.listed()):
            folder = join("sequences", name)
            if not self.check_files(folder, ("im1.png", "im2.png", "im3.png"), name, problems):
                continue
            flows = [join("flow", name, f"{flow}.flo") for flow in FLOWS]
            labels, packed = [], None
            if self.labels is not None:
                labels = [join(self.labels, name, file) for file in FILES]
                missing = [path for path in labels if not fileio.exists(self.located(path))]
                problems.extend(Problem(path, "this label is missing", name) for path in missing)
            if self.packed is not None:
                packed = join(self.packed, f"{name}{SUFFIX}")
                if not fileio.exists(self.located(packed)):
                    problems.append(Problem(packed, "this packed triplet is missing", name))
            yield self.triplet(
                *(join(folder, f"im{frame}.png") for frame in (1, 2, 3)),
                sequence=name,
                frame=number,
                sample_id=name,
                flows=flows if self.files(join("flow", name)) else (),
                labels=labels,
                packed=packed,
            )


@DATASETS.register_module()
class VimeoSeptupletDataset(VimeoDataset):
    """Vimeo90K's septuplets, 448×256 pixels: seven successive frames, ``im1.png`` to ``im7.png``.

    Every choice of three frames a < b < c is a sample, with the frame b at the time (b - a) / (c - a): 35 of each
    septuplet, of which a training draws at random, as RIFE for any time does.

    Args:
        data_root: the folder ``vimeo_septuplet``.
        split: as for :class:`VimeoTripletDataset`.
        middle: only the frame in the middle of the first and the last one.
        pipeline: transforms; None loads and packs whole frames.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Example:
        dict(type="ffplug_ugsp.VimeoSeptupletDataset", data_root="data/vimeo_septuplet")
    """

    layout = "vimeo-septuplet"
    title = "Vimeo90K septuplets"
    lists = ("sep_trainlist.txt", "sep_testlist.txt")

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        middle: bool = False,
        pipeline: Steps | None = None,
        **kwargs: Any,
    ) -> None:
        self.middle = middle
        super().__init__(data_root, split, None, pipeline, **kwargs)

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the choices of three frames, septuplet by septuplet."""
        for number, name in enumerate(self.listed()):
            folder = join("sequences", name)
            if not self.check_files(folder, [f"im{frame}.png" for frame in range(1, 8)], name, problems):
                continue
            for first, middle, last in self._choices():
                yield self.triplet(
                    *(join(folder, f"im{frame}.png") for frame in (first, middle, last)),
                    sequence=name,
                    frame=number,
                    sample_id=f"{name}/{first}{middle}{last}",
                    timestep=(middle - first) / (last - first),
                )

    def _choices(self) -> Iterator[tuple[int, int, int]]:
        if self.middle:
            yield 1, 4, 7
            return
        for first in range(1, 6):
            for middle in range(first + 1, 7):
                for last in range(middle + 1, 8):
                    yield first, middle, last
