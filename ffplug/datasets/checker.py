"""Look a data set over before a training starts: what is missing, cut off, or of the wrong size."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np
from mmengine import fileio

from ffplug.datasets.base import FlowDataset, Problem
from ffplug.datasets.formats import (
    FLO_MAGIC,
    IMAGE_SUFFIXES,
    read_flow,
    read_image,
    read_mask,
    read_pfm_header,
)
from ffplug.datasets.layouts import (
    Part,
    detect_layout,
    explain_root,
    get_layout,
    has_layout,
    join,
    layout_names,
    list_folder,
    read_marker,
)
from ffplug.datasets.sintel import FRAMES
from ffplug.errors import DataError, did_you_mean
from ffplug.registry import DATASETS

HEAD_BYTES = 4096
_PPM_HEADER = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+(\d+)\s")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


FOLDER = "folder"
"""What a check takes a folder of frames for that is no data set's."""

FOLDER_PARTS = (Part("", "ffplug.FolderFlowDataset", needed=True),)


@dataclasses.dataclass
class CheckReport:
    """What a check found.

    Attributes:
        root: the folder.
        layout: name of the layout, or :data:`FOLDER`.
        title: the data set's name; ``procedural`` tells a stand-in.
        full: whether every file was decoded.
        noun: what is counted: ``frame pairs``, ``faces`` and so on.
        pairs: number of samples per (part, sequence): frame pairs, unless ``noun`` tells others.
        files: number of files looked at.
        problems: what is wrong.
        notes: what is absent but need not be there.
    """

    root: str
    layout: str
    title: str
    procedural: bool
    full: bool
    noun: str = "frame pairs"
    pairs: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    files: int = 0
    problems: list[Problem] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Everything as plain lists and dicts."""
        return {
            "root": self.root,
            "layout": self.layout,
            "title": self.title,
            "procedural": self.procedural,
            "full": self.full,
            "ok": self.ok,
            "noun": self.noun,
            "files": self.files,
            "sequences": [
                {"part": part, "sequence": sequence, "pairs": pairs} for (part, sequence), pairs in self.pairs.items()
            ],
            "problems": [dataclasses.asdict(problem) for problem in self.problems],
            "notes": self.notes,
        }


def check_dataset(
    root: str,
    layout: str = "auto",
    full: bool = False,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
) -> CheckReport:
    """Check a data set on disk.

    The quick check lists what should be there and reads each file's header and end, which finds whatever a broken
    download leaves; ``full`` decodes every file.

    Args:
        root: its root folder.
        layout: name of a layout, :data:`FOLDER`, or ``'auto'`` to recognise it.
        full: decode every file.
        progress: called with the number of files done and to do.
        workers: threads; None = one per core.

    Returns:
        What is there and what is wrong.

    Raises:
        DataError: nothing that can be checked lies there.
    """
    root = os.path.expanduser(root)
    layout = _recognise(root, layout)
    title, parts = "folder of frames", FOLDER_PARTS
    if layout != FOLDER:
        title, parts = get_layout(layout).title, get_layout(layout).parts
    report = CheckReport(root, layout, title, read_marker(root) is not None, full)
    pairs: list[tuple[str, dict[str, Any]]] = []
    for part in parts:
        pairs += [(part.folder, pair) for pair in _scan_part(part, report)]
    if not pairs and not report.problems:
        raise DataError(f"{root}: no frames" if layout == FOLDER else explain_root(root, layout, parts[0].folder))
    report.pairs = dict(Counter((part, pair["sequence"]) for part, pair in pairs))
    _check_files(report, [pair for _, pair in pairs], progress, workers)
    return report


def _recognise(root: str, layout: str) -> str:
    if layout == "auto":
        if not fileio.isdir(root):
            raise DataError(f"{root}: {'not a folder' if fileio.exists(root) else 'no such folder'}")
        if list_folder(root) == ([], []):
            raise DataError(f"{root}: the folder is empty")
        layout = detect_layout(root) or _inner_layout(root)
    names = [*layout_names(), FOLDER]
    if layout not in names:
        raise DataError(f"layout {layout!r}: expected auto, {', '.join(names)}{did_you_mean(layout, names)}")
    if layout != FOLDER and not has_layout(root, layout):
        raise DataError(explain_root(root, layout, get_layout(layout).parts[0].folder))
    return layout


def _inner_layout(root: str) -> str:
    """The layout of a root that none recognises: its own frames, or an error that says where the set may lie."""
    folders, files = list_folder(root)
    for folder in folders:
        inner = join(root, folder)
        if key := detect_layout(inner):
            raise DataError(f"{root}: not a data set's root; {get_layout(key).title} lies in {inner}: check that")
    if any(name.lower().endswith(IMAGE_SUFFIXES) for name in files):
        return FOLDER
    shown = ", ".join(folders[:8] + files[:8])
    known = ", ".join(get_layout(name).title for name in layout_names())
    raise DataError(f"{root}: expected the root of {known}, or a folder of frames; found {shown}")


def _scan_part(part: Part, report: CheckReport) -> list[dict[str, Any]]:
    if part.folder and not fileio.isdir(join(report.root, part.folder)):
        if part.needed:
            report.problems.append(Problem(part.folder, "this folder is missing"))
        else:
            report.notes.append(f"{part.folder}: not there")
        return []
    dataset: FlowDataset = DATASETS.get(part.dataset)(report.root, lazy_init=True, **part.options)
    report.noun = dataset.noun
    problems: list[Problem] = []
    try:
        pairs = list(dataset.scan(problems))
    except DataError as error:
        report.problems.append(Problem(part.folder or report.root, str(error)))
        return []
    if not report.procedural:
        _check_counts(part, dataset, len(pairs), report)
    report.problems += [dataclasses.replace(p, path=join(report.root, p.path)) for p in problems]
    return [dataset.resolve(pair) for pair in pairs]


def _check_counts(part: Part, dataset: FlowDataset, found: int, report: CheckReport) -> None:
    """Compare with the published numbers; for Sintel, by scene."""
    if part.dataset == "ffplug.SintelDataset" and part.options.get("split") != "test":
        folder = join(report.root, part.folder)
        for scene, frames in FRAMES.items():
            there = sum(name.endswith(".png") for name in list_folder(join(folder, scene))[1])
            if there != frames:
                message = f"expected {frames} frames, found {there or 'none'}"
                report.problems.append(Problem(join(folder, scene), message, scene))
    elif dataset.published_pairs is not None and found != dataset.published_pairs:
        message = f"found {found} {dataset.noun}, the published set has {dataset.published_pairs}"
        if part.dataset == "ffplug.HD1KDataset":
            report.notes.append(f"{part.folder}: {message}")
        else:
            report.problems.append(Problem(join(report.root, part.folder), message))


def _check_files(
    report: CheckReport,
    pairs: list[dict[str, Any]],
    progress: Callable[[int, int], None] | None,
    workers: int | None,
) -> None:
    kinds: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        for path, kind in _listed(pair):
            kinds.setdefault(path, (kind, pair["sequence"]))
    listed = {problem.path for problem in report.problems}
    paths = [path for path in kinds if path not in listed]
    report.files = len(paths)
    sizes: dict[str, tuple[int, int]] = {}
    known = None if report.layout == FOLDER else get_layout(report.layout)

    def inspect(path: str, kind: str) -> tuple[int, int]:
        own = known.inspect(path, report.full) if known is not None else None
        return own or (_decode if report.full else _peek)(path, kind)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for done, (path, outcome) in enumerate(
            zip(paths, pool.map(lambda path: _try(inspect, path, kinds[path][0]), paths), strict=True), start=1
        ):
            if isinstance(outcome, str):
                report.problems.append(Problem(path, outcome, kinds[path][1]))
            else:
                sizes[path] = outcome
            if progress:
                progress(done, len(paths))
    for pair in pairs:
        if "img1_path" in pair:
            _compare_sizes(pair, sizes, report)


def _listed(pair: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The files of an entry with their kinds; those of a sample that is no pair are under ``..._path`` and, several,
    ``..._paths``, by suffix.
    """
    if "img1_path" not in pair:
        listed = [path for key, path in pair.items() if key.endswith("_path")]
        several = [paths for key, paths in pair.items() if key.endswith("_paths") and isinstance(paths, list)]
        for path in itertools.chain(listed, *several):
            if path:
                suffix = os.path.splitext(path)[1].lower()
                yield path, "image" if suffix in IMAGE_SUFFIXES else "flow" if suffix == ".flo" else "array"
        return
    yield pair["img1_path"], "image"
    yield pair["img2_path"], "image"
    if pair["flow_path"]:
        yield pair["flow_path"], "flow"
    for name, path in pair["mask_paths"].items():
        yield path, "flow" if name == "valid_noc" else "mask"


def _compare_sizes(pair: dict[str, Any], sizes: dict[str, tuple[int, int]], report: CheckReport) -> None:
    """Report second frames, flows and masks whose size is not the first frame's."""
    expected = sizes.get(pair["img1_path"])
    if expected is None:
        return
    width, height = expected
    for path in (pair["img2_path"], pair["flow_path"], *pair["mask_paths"].values()):
        allowed = [expected]
        if pair["doubled"] and path != pair["img2_path"]:
            allowed.append((2 * width, 2 * height))
        if path in sizes and sizes[path] not in allowed:
            found = "×".join(map(str, sizes[path]))
            message = f"expected {width}×{height} (W×H) as {os.path.basename(pair['img1_path'])}, found {found}"
            report.problems.append(Problem(path, message, pair["sequence"]))


def _try(inspect: Callable[[str, str], tuple[int, int]], path: str, kind: str) -> tuple[int, int] | str:
    """The file's (width, height), or what is wrong with it."""
    try:
        return inspect(path, kind)
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")


def _decode(path: str, kind: str) -> tuple[int, int]:
    """Decode the whole file."""
    if kind == "array":
        array = _map_array(path)
        if not np.isfinite(array).all():
            raise DataError(f"{path}: holds NaN or infinity")
        return array.shape[1], array.shape[0]
    if kind == "flow":
        flow, valid = read_flow(path)
        if not valid.any():
            raise DataError(f"{path}: no pixel of this flow is valid")
        return flow.shape[1], flow.shape[0]
    array = read_image(path) if kind == "image" else read_mask(path)
    return array.shape[1], array.shape[0]


def _peek(path: str, kind: str) -> tuple[int, int]:
    """Read the header, and compare the file's length and end with it."""
    if kind == "array":
        array = _map_array(path)
        return array.shape[1], array.shape[0]
    if not os.path.isfile(path):
        return _decode(path, kind)  # a remote back-end, or a missing file: the reader's error says so
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(max(0, size - 16))
        tail = file.read()
    suffix = os.path.splitext(path)[1].lower()
    if not head:
        raise DataError(f"{path}: the file is empty (0 bytes); download or write it again")
    if suffix == ".png":
        return _peek_png(path, kind, head, tail)
    if suffix == ".flo" and head[:4] == FLO_MAGIC and size >= 12:
        width, height = (side.item() for side in np.frombuffer(head, "<i4", 2, 4))
        return _expect(path, width, height, 12 + 8 * width * height, size)
    if suffix == ".pfm":
        width, height, _, end = read_pfm_header(head, path)
        return _expect(
            path, width, height, end + (2 if head[end : end + 2] == b"\r\n" else 1) + 12 * width * height, size
        )
    if suffix == ".ppm" and (match := _PPM_HEADER.match(head)):
        width, height, largest = map(int, match.groups())
        return _expect(path, width, height, match.end() + 3 * width * height * (2 if largest > 255 else 1), size)
    if suffix == ".flo5":
        return _peek_flo5(path)
    return _decode(path, kind)


def _map_array(path: str) -> np.ndarray:
    """Map a ``.npy`` file, whose length its header tells."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a whole .npy file ({error})") from None
    if array.ndim < 2:
        raise DataError(f"{path}: expected an array of two axes or more, found {array.shape}")
    return array


def _peek_png(path: str, kind: str, head: bytes, tail: bytes) -> tuple[int, int]:
    if not head.startswith(PNG_SIGNATURE) or head[12:16] != b"IHDR" or len(head) < 33:
        raise DataError(f"{path}: expected a PNG, found a file that starts with {head[:8]!r}")
    if tail[-8:-4] != b"IEND":
        raise DataError(f"{path}: truncated PNG: its end marker is missing")
    width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
    if kind == "flow" and (head[24], head[25]) != (16, 2):
        raise DataError(f"{path}: expected a flow PNG of 3 channels with 16 bits each, found {head[24]} bits")
    return width, height


def _peek_flo5(path: str) -> tuple[int, int]:
    try:
        with h5py.File(path, "r") as file:
            shape = file["flow"].shape
    except (OSError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: expected an HDF5 file with the data set 'flow' ({error})") from None
    if len(shape) != 3 or shape[2] != 2:
        raise DataError(f"{path}: expected a flow of shape H×W×2, found {shape}")
    return shape[1], shape[0]


def _expect(path: str, width: int, height: int, expected: int, found: int) -> tuple[int, int]:
    if width < 1 or height < 1 or expected != found:
        state = "truncated" if found < expected else "damaged"
        raise DataError(f"{path}: {state}: {width}×{height} pixels (W×H) take {expected} bytes, found {found}")
    return width, height
