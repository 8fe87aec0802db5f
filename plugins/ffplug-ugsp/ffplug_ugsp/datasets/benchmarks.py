"""The public sets that interpolation is tested on: UCF101, Middlebury, SNU-FILM, Xiph and X4K1000FPS."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from mmengine import fileio

from ffplug.datasets.base import Problem, choose, choose_all
from ffplug.datasets.layouts import join
from ffplug.errors import DataError
from ffplug_ugsp.datasets.triplets import Steps, TripletDataset
from ffplug_ugsp.registry import DATASETS

LEVELS = ("easy", "medium", "hard", "extreme")
VIEWS = ("2K", "4K")
_VIEW_OPTIONS = {"2K": "half", "4K": "centre"}


def _viewed(view: str, pipeline: Steps | None) -> Steps:
    """The pipeline of a set that papers cut in two ways."""
    if pipeline is not None:
        return pipeline
    return [
        dict(type="ffplug_ugsp.LoadTriplet", view=_VIEW_OPTIONS[view]),
        dict(type="ffplug_ugsp.PackTriplet"),
    ]


@DATASETS.register_module()
class UCF101Dataset(TripletDataset):
    """The test subset of UCF101 that Deep Voxel Flow chose: 379 triplets of 256×256 pixels.

    ``ucf101_interp_ours/1/frame_00.png``, ``frame_01_gt.png`` and ``frame_02.png``; the root is that folder, whatever
    its name, or the one above it.

    Args:
        data_root: the folder.
        pipeline: transforms; None loads and packs whole frames.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Example:
        dict(type="ffplug_ugsp.UCF101Dataset", data_root="data/ucf101_interp_ours")
    """

    layout = "ucf101-dvf"
    title = "UCF101 (DVF)"

    @property
    def published_pairs(self) -> int | None:  # noqa: D102 (see the base class)
        return 379

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the triplets in order of their folders' names."""
        inner = next((name for name in ("ucf101_interp_ours", "ucf101_interp") if name in self.folders("")), "")
        names = self.folders(inner)
        if not names:
            self.require("1")
        for number, name in enumerate(names):
            folder = join(inner, name)
            files = ("frame_00.png", "frame_01_gt.png", "frame_02.png")
            if self.check_files(folder, files, name, problems):
                paths = [join(folder, file) for file in files]
                yield self.triplet(*paths, sequence=name, frame=number, sample_id=name)


@DATASETS.register_module()
class MiddleburyInterpolationDataset(TripletDataset):
    """Middlebury's OTHER sequences whose frame between is public: twelve, of three sizes.

    ``other-data/Beanbags/frame10.png``, ``frame11.png`` and ``other-gt-interp/Beanbags/frame10i11.png``. As published
    evaluations do, frames lie at the top left of a black canvas of 640×480, and only they count.

    Args:
        data_root: the folder of both.
        canvas: height and width of it, or None for none.
        pipeline: transforms; None loads and packs.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Example:
        dict(type="ffplug_ugsp.MiddleburyInterpolationDataset", data_root="data/middlebury")
    """

    layout = "middlebury-interp"
    title = "Middlebury OTHER"

    def __init__(
        self,
        data_root: str,
        canvas: tuple[int, int] | None = (480, 640),
        pipeline: Steps | None = None,
        **kwargs: Any,
    ) -> None:
        if pipeline is None:
            pipeline = [dict(type="ffplug_ugsp.LoadTriplet", canvas=canvas), dict(type="ffplug_ugsp.PackTriplet")]
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def published_pairs(self) -> int | None:  # noqa: D102 (see the base class)
        return 12

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the sequences by name."""
        truth = self.require("other-gt-interp")
        for number, name in enumerate(self.folders(truth)):
            folder = join("other-data", name)
            whole = self.check_files(folder, ("frame10.png", "frame11.png"), name, problems)
            if self.check_files(join(truth, name), ("frame10i11.png",), name, problems) and whole:
                target = join(truth, name, "frame10i11.png")
                ends = [join(folder, f"frame{frame}.png") for frame in (10, 11)]
                yield self.triplet(ends[0], target, ends[1], sequence=name, frame=number, sample_id=name)


@DATASETS.register_module()
class SNUFILMDataset(TripletDataset):
    """SNU-FILM: 310 triplets at each of four distances in time, mostly of 1280×720 pixels.

    ``test-easy.txt`` and so on list three paths a line: the frame before, the true one, the frame after. Lists that
    name them from another folder on (``data/SNU-FILM/test/…``) are understood.

    Args:
        data_root: the folder with the lists.
        levels: ``easy``, ``medium``, ``hard``, ``extreme``, or several; each is a kind for the metric.
        pipeline: transforms; None loads and packs whole frames.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Example:
        dict(type="ffplug_ugsp.SNUFILMDataset", data_root="data/SNU-FILM")
    """

    layout = "snu-film"
    title = "SNU-FILM"

    def __init__(
        self, data_root: str, levels: str | tuple[str, ...] = LEVELS, pipeline: Steps | None = None, **kwargs: Any
    ) -> None:
        self.levels = choose_all("levels", levels, LEVELS)
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def published_pairs(self) -> int | None:  # noqa: D102 (see the base class)
        return 310 * len(self.levels)

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the listed triplets, level by level."""
        self.require("")
        for level in self.levels:
            file = f"test-{level}.txt"
            path = join(self.data_root, file)
            try:
                lines = [line.split() for line in fileio.get_text(path).splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path}: the list cannot be read ({error}); it comes with the data") from None
            for number, names in enumerate(filter(None, lines)):
                if len(names) != 3:
                    raise DataError(f"{path}: line {number + 1}: expected three paths, found {len(names)}")
                paths = [self._find(name) for name in names]
                missing = [name for name, path in zip(names, paths, strict=True) if path is None]
                problems.extend(Problem(name, f"named by {file}, but missing", level) for name in missing)
                if not missing:
                    sequence = os.path.dirname(paths[0])
                    yield self.triplet(
                        *paths, sequence=sequence, frame=number, sample_id=f"{level}/{number:04d}", kind=level
                    )

    def _find(self, name: str) -> str | None:
        """Where a listed file lies below the root: as it is listed, or without the folders before the set's own."""
        short = name.removeprefix("data/SNU-FILM/")
        for candidate in (name, short, short.removeprefix("test/")):
            if fileio.exists(join(self.data_root, candidate)):
                return candidate
        return None


@DATASETS.register_module()
class XiphDataset(TripletDataset):
    """Eight clips of Xiph at 4096×2160 pixels, 60 a second, as the interpolation papers cut them.

    ``BoxingPractice/001.png`` to ``100.png`` and so on (names with the clip before the number are understood); frames
    n - 1 and n + 1 are given for even n of 2 to 98: 49 of each clip.

    Args:
        data_root: the folder of the clips' folders.
        view: ``2K``, each frame averaged to half its size, or ``4K``, the middle half of each side.
        pipeline: transforms, the view's included; None takes the view's.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Example:
        dict(type="ffplug_ugsp.XiphDataset", data_root="data/xiph")
    """

    layout = "xiph"
    title = "Xiph"

    def __init__(self, data_root: str, view: str = "2K", pipeline: Steps | None = None, **kwargs: Any) -> None:
        self.view = choose("view", view, VIEWS)
        super().__init__(data_root, _viewed(view, pipeline), **kwargs)

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return f"{self.title}/{self.view}"

    @property
    def published_pairs(self) -> int | None:  # noqa: D102 (see the base class)
        return 392

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield every second frame of each clip."""
        self.require("")
        for clip in self.folders(""):
            files = self.numbered(clip, r"(?:.*\D)?(\d{1,5})\.png")
            last = min(max(files, default=0), 100)
            for middle in range(2, last, 2):
                names = [files.get(number) for number in (middle - 1, middle, middle + 1)]
                if None in names:
                    missing = (middle - 1, middle, middle + 1)[names.index(None)]
                    problems.append(Problem(join(clip, f"{missing:03d}.png"), "this frame is missing", clip))
                    continue
                paths = [join(clip, name) for name in names]
                yield self.triplet(*paths, sequence=clip, frame=middle, sample_id=f"{clip}/{middle:03d}")


@DATASETS.register_module()
class X4KDataset(TripletDataset):
    """X4K1000FPS: 4K at 1000 frames a second; seven frames between two that lie 32 apart.

    ``test/Type1/TEST01_003_f0433/0000.png`` to ``0032.png``: of frames 0 and 32, those at 4, 8 ... 28. For training,
    ``train/002/occ008.320/0000.png`` to ``0064.png``: each multiple of 8 between frames 0 and 64.

    Args:
        data_root: the folder of ``test`` and ``train``.
        split: ``test`` or ``train``.
        view: in the test, ``2K``, each frame averaged to half its size, or ``4K``, whole frames.
        pipeline: transforms, the view's included; None takes the view's.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Example:
        dict(type="ffplug_ugsp.X4KDataset", data_root="data/X4K1000FPS")
    """

    layout = "x4k1000fps"
    title = "X4K1000FPS"

    def __init__(
        self, data_root: str, split: str = "test", view: str = "4K", pipeline: Steps | None = None, **kwargs: Any
    ) -> None:
        self.split, self.view = choose("split", split, ("test", "train")), choose("view", view, VIEWS)
        if view == "2K":
            pipeline = _viewed(view, pipeline)
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return f"{self.title}/{self.split}/{self.view}"

    @property
    def published_pairs(self) -> int | None:  # noqa: D102 (see the base class)
        return 105 if self.split == "test" else 4408 * 7

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the seven frames between of each clip."""
        self.require(self.split)
        last = 32 if self.split == "test" else 64
        for outer in self.folders(self.split):
            for inner in self.folders(join(self.split, outer)):
                clip = join(self.split, outer, inner)
                numbers = [last * place // 8 for place in range(9)]
                names = [f"{number:04d}.png" for number in numbers]
                if not self.check_files(clip, names, clip, problems):
                    continue
                for place in range(1, 8):
                    yield self.triplet(
                        *(join(clip, name) for name in (names[0], names[place], names[-1])),
                        sequence=clip,
                        frame=numbers[place],
                        sample_id=f"{clip}/{numbers[place]:04d}",
                        timestep=place / 8,
                        kind=outer if self.split == "test" else "",
                    )
