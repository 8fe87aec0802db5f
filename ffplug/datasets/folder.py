"""Any folder of frames, with or without true flow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

from mmengine import fileio

from ffplug.datasets.base import FlowDataset, Problem
from ffplug.datasets.formats import FLOW_SUFFIXES, IMAGE_SUFFIXES
from ffplug.datasets.layouts import join, list_folder
from ffplug.datasets.sintel import SintelDataset
from ffplug.errors import DataError
from ffplug.registry import DATASETS


def natural_order(name: str) -> list[Any]:
    """Sort key that puts ``frame_2`` before ``frame_10``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


@DATASETS.register_module()
class FolderFlowDataset(FlowDataset):
    """Pairs out of one's own frames: consecutive frames of each folder, or the pairs that a list names.

    Args:
        data_root: folder of frames; folders in it, at any depth, are sequences of their own.
        pipeline: transforms; None loads the pair and packs it.
        frames: folder of the frames below ``data_root``.
        pairs: text file below ``data_root`` with a pair a line, ``frame1 frame2 [flow [valid]]``, paths below
            ``data_root`` (names with spaces are not possible there), in place of consecutive frames.
        flow: folder below ``data_root`` with the frames' tree and, for each first frame that has one, the flow
            of the same stem (``.flo``, ``.pfm``, ``.flo5``, ``.png``, ``.npz`` or ``.npy``). None = no ground truth.
            With a folder, first frames without flow are left out.
        valid: folder of mask pictures, laid out the same way, above 0 = valid.
        step: distance of the two frames of a pair in the sorted list.
        name: what to call the data set in logs and tables.
        **kwargs: see :class:`FlowDataset`.

    Example:
        dict(type="ffplug.FolderFlowDataset", data_root="data/Sintel", frames="training/clean", flow="training/flow")
    """

    title = "folder"

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[Any] | None = None,
        *,
        frames: str = "",
        pairs: str | None = None,
        flow: str | None = None,
        valid: str | None = None,
        step: int = 1,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if step < 1:
            raise DataError(f"step={step}: expected 1 or more")
        self.frames, self.pairs, self.flow, self.valid, self.step = frames, pairs, flow, valid, step
        self._name = name or os.path.basename(os.fspath(data_root or "").rstrip("/")) or self.title
        super().__init__(data_root, pipeline, **kwargs)

    @classmethod
    def write_example(cls, folder: str | os.PathLike) -> None:
        """Write a small procedural set in Sintel's layout: folders of frames, and of flow with the same stems."""
        SintelDataset.write_example(folder)

    @property
    def name(self) -> str:  # noqa: D102
        return self._name

    def require(self, *folders: str) -> str:  # noqa: D102 (as the base class, without a layout to compare with)
        for folder in folders:
            path = join(self.data_root, folder)
            if list_folder(path) != ([], []):
                return folder
            state = "the folder is empty" if fileio.isdir(path) else "no such folder"
            raise DataError(f"{path}: {state}; expected frames ({', '.join(IMAGE_SUFFIXES)})")
        return ""

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the listed pairs, or those of consecutive frames folder by folder."""
        if self.pairs:
            yield from self._scan_list(problems)
            return
        self.require(self.frames)
        for folder in (self.flow, self.valid):
            if folder is not None:
                self.require(folder)
        before = len(problems)
        count = 0
        for pair in self._scan_folder(""):
            count += 1
            yield pair
        if not count and len(problems) == before:
            where = join(self.data_root, self.frames)
            with_flow = f" with a flow of the same stem in {self.flow}" if self.flow else ""
            raise DataError(f"{where}: no two frames ({', '.join(IMAGE_SUFFIXES)}) in any folder{with_flow}")

    def _scan_folder(self, below: str) -> Iterable[dict[str, Any]]:
        folder = join(self.frames, below)
        names = [name for name in self.files(folder) if name.lower().endswith(IMAGE_SUFFIXES)]
        names.sort(key=natural_order)
        flows, masks = self._stems(self.flow, below), self._stems(self.valid, below)
        for position, (first, second) in enumerate(zip(names, names[self.step :], strict=False)):
            stem = os.path.splitext(first)[0]
            if self.flow is None or stem in flows:
                yield self.pair(
                    join(folder, first),
                    join(folder, second),
                    flows.get(stem),
                    sequence=below or os.path.basename(self.data_root),
                    frame=position,
                    sample_id=join(below, stem),
                    masks={"valid": masks[stem]} if stem in masks else None,
                )
        for name in self.folders(folder):
            yield from self._scan_folder(join(below, name))

    def _stems(self, folder: str | None, below: str) -> dict[str, str]:
        """Files of ``folder``/``below`` by their stem."""
        if folder is None:
            return {}
        where = join(folder, below)
        return {
            os.path.splitext(name)[0]: join(where, name)
            for name in self.files(where)
            if name.lower().endswith(FLOW_SUFFIXES)
        }

    def _scan_list(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        path = join(self.data_root, self.pairs)
        try:
            lines = fileio.get_text(path).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: the list of pairs cannot be read ({error})") from None
        for number, line in enumerate(lines, 1):
            names = line.split()
            if not names:
                continue
            if not 2 <= len(names) <= 4:
                raise DataError(f"{path}: line {number}: expected 'frame1 frame2 [flow [valid]]', found {line[:80]!r}")
            problems.extend(
                Problem(name, f"named by line {number} of {self.pairs}, but missing", self.name)
                for name in names
                if not fileio.exists(join(self.data_root, name))
            )
            yield self.pair(
                names[0],
                names[1],
                names[2] if len(names) > 2 else None,
                sequence=os.path.dirname(names[0]) or os.path.basename(self.data_root),
                frame=number - 1,
                sample_id=f"{number - 1:06d}/{os.path.splitext(names[0])[0]}",
                masks={"valid": names[3]} if len(names) > 3 else None,
            )
