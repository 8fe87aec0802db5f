"""The compressed twin of a flow data set: clips beside the original, whose truth is read where it lies."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from ffplug.datasets.base import FlowDataset, Problem, choose
from ffplug.datasets.formats import read_image
from ffplug.datasets.layouts import join, read_json_object
from ffplug.errors import ConfigError, DataError
from ffplug.files import atomic_path
from ffplug.registry import DATASETS as CORE_DATASETS
from ffplug_mvflow.encoding import Encoding, encode_clip, encode_pair, versions
from ffplug_mvflow.registry import DATASETS

META = "meta.json"
"""The file at the root of a compressed set that says what it was made from, and how."""

KINDS = ("pairs", "clips")


@DATASETS.register_module()
class CompressedFlowDataset(FlowDataset):
    """Pairs of a flow data set as compressed video shows them, with motion vectors; made by ``ffplug mvflow encode``.

    ``meta.json`` at the root names the original data set, which must still be there: true flow and masks are read from
    it. The data set's name tells codec and quality, so that metrics are listed by them.

    Args:
        data_root: folder of the compressed set.
        pipeline: transforms; None loads and packs.
        source: arguments of the original data set that differ from those in ``meta.json``, such as ``data_root``.
        **kwargs: see :class:`ffplug.datasets.base.FlowDataset`.

    Raises:
        DataError: no compressed set, or its original is not there.

    Example:
        dict(type="ffplug_mvflow.CompressedFlowDataset", data_root="data/mv/sintel/h264_medium_crf23")
    """

    title = "compressed"

    def __init__(
        self,
        data_root: str | os.PathLike[str],
        pipeline: Sequence[dict | Callable] | None = None,
        source: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if pipeline is None:
            pipeline = [dict(type="ffplug_mvflow.LoadCompressedPair"), dict(type="ffplug_mvflow.PackMotionInputs")]
        root = os.path.expanduser(os.fspath(data_root))
        meta = read_json_object(join(root, META))
        if meta is None:
            raise DataError(
                f"{root}: no {META}, so no compressed data set; `ffplug mvflow encode` makes one of any flow data set"
            )
        missing = {"source", "encoding", "pairs"} - meta.keys()
        if missing:
            raise DataError(f"{join(root, META)}: lacks {', '.join(sorted(missing))}; encode the set again")
        self.meta = meta
        config = {**meta["source"], **(source or {})}
        if not os.path.isabs(config.get("data_root", "/")) and not (source or {}).get("data_root"):
            config["data_root"] = os.path.normpath(join(root, config["data_root"]))
        self.source: FlowDataset = CORE_DATASETS.build({**config, "pipeline": []})
        self.encoding = Encoding(**meta["encoding"])
        super().__init__(root, pipeline, **kwargs)
        self._metainfo["procedural"] = self.source.metainfo["procedural"]

    @property
    def name(self) -> str:  # noqa: D102
        return f"{self.source.name} {self.encoding.name}"

    @classmethod
    def write_example(cls, folder: str | os.PathLike) -> None:
        """Write a small procedural Sintel and its compressed twin round it, for tests and examples."""
        from ffplug.datasets import SintelDataset

        original = Path(folder) / "original"
        SintelDataset.write_example(original)
        compress(dict(type="ffplug.SintelDataset", data_root=str(original)), folder, Encoding(preset="veryfast"))

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pairs of the original that have a clip."""
        pairs = self.meta["pairs"]
        for index in range(len(self.source)):
            info = self.source.get_data_info(index)
            clip = pairs.get(f"{info['dataset']}:{info['sample_id']}")
            if clip is None:
                continue
            if not os.path.isfile(join(self.data_root, clip["clip"])):
                problems.append(Problem(clip["clip"], "this clip is missing", info["sequence"]))
            yield dict(index=index, clip_path=clip["clip"], clip_frame=clip.get("frame"))

    def load_data_list(self) -> list[dict[str, Any]]:  # noqa: D102
        problems: list[Problem] = []
        pairs = list(self.scan(problems))
        if problems:
            first = problems[0]
            raise DataError(
                f"{self.data_root}: {first.path}: {first.message}, and {len(problems) - 1} more problem(s); the "
                "command that encoded the set adds what is missing"
            )
        if not pairs:
            raise DataError(f"{self.data_root}: none of its clips belongs to a pair of {self.source.name}")
        return pairs

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:
        """The original's entry with the clip's path."""
        original = self.source.get_data_info(info["index"])
        dataset = f"{original['dataset']} {self.encoding.name}"
        return {**original, "dataset": dataset, "clip_path": join(self.data_root, info["clip_path"]),
                "clip_frame": info["clip_frame"]}  # fmt: skip


def compress(
    source: Mapping[str, Any],
    out: str | os.PathLike[str],
    encoding: Encoding,
    kind: str = "pairs",
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the compressed twin of a flow data set; clips that are there already are kept.

    Args:
        source: config of the original data set, with its type.
        out: folder of the compressed set.
        encoding: how to encode.
        kind: ``pairs`` encodes each pair by itself, second frame first, so that the vectors of frame 1 point into
            frame 2 exactly as the true flow does; ``clips`` encodes whole sequences in order of time, as videos come.
        workers: processes; 0 works in this one.
        progress: is told how many clips of how many are done.

    Returns:
        What is written to ``meta.json``.

    Raises:
        ConfigError: an unknown kind.
        DataError: the original cannot be read, or ``out`` holds another compressed set.
    """
    choose("kind", kind, KINDS)
    out = Path(out)
    config = dict(source)
    dataset: FlowDataset = CORE_DATASETS.build({**config, "pipeline": []})
    if "data_root" in config:
        config["data_root"] = _relative(config["data_root"], out)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    clips, pairs = _plan(infos, kind)
    meta = {
        "source": config,
        "dataset": dataset.name,
        "procedural": bool(dataset.metainfo["procedural"]),
        "kind": kind,
        "encoding": dataclasses.asdict(encoding),
        "options": encoding.options(),
        "colour": "BT.601, limited range",
        "pairs": pairs,
    }
    known = read_json_object(str(out / META))
    if known is not None and {key: known.get(key) for key in meta} != json.loads(json.dumps(meta)):
        raise DataError(f"{out / META}: the folder holds another compressed set; choose another folder")
    todo = [(path, members) for path, members in clips.items() if not (out / path).is_file()]
    jobs = [(dict(source), members, str(out / path), encoding, kind) for path, members in todo]
    done = len(clips) - len(jobs)
    if workers:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            for _ in pool.map(_write_clip, jobs, chunksize=4):
                done += 1
                if progress is not None:
                    progress(done, len(clips))
    else:
        for job in jobs:
            _write_clip(job, dataset)
            done += 1
            if progress is not None:
                progress(done, len(clips))
    meta["versions"] = versions()
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / META) as path:
        Path(path).write_text(json.dumps(meta, indent=1))
    return meta


def _relative(root: str, out: Path) -> str:
    """The original's root relative to the compressed set where it lies within it, else absolute."""
    root, folder = os.path.abspath(os.path.expanduser(root)), os.path.abspath(out)
    return os.path.relpath(root, folder) if root.startswith(folder + os.sep) else root


def _plan(infos: list[dict[str, Any]], kind: str) -> tuple[dict[str, list[int]], dict[str, dict[str, Any]]]:
    """Clips with the positions of their pairs, and for each pair its clip and place in it."""
    clips: dict[str, list[int]] = {}
    pairs: dict[str, dict[str, Any]] = {}
    runs: Counter[str] = Counter()
    last: tuple[str, str, int, Any] | None = None
    for index, info in enumerate(infos):
        key = f"{info['dataset']}:{info['sample_id']}"
        flow = info.get("flow_path")
        if kind == "pairs":
            path = f"{_file_name(info['dataset'])}/{_file_name(info['sample_id'])}.mp4"
            clips[path] = [index]
            pairs[key] = {"clip": path, "flow": flow}
            continue
        group = f"{_file_name(info['dataset'])}/{_file_name(info['sequence'])}"
        # A gap in a sequence, or time that runs back (flow into the past), starts a new clip.
        follows = last is not None and last[:3] == (info["dataset"], info["sequence"], info["frame"] - 1)
        if not (follows and last[3] == info["img1_path"] and info["img1_path"] is not None):
            runs[group] += 1
            clips[f"{group}_{runs[group]:03d}.mp4"] = []
        path = f"{group}_{runs[group]:03d}.mp4"
        pairs[key] = {"clip": path, "frame": len(clips[path]), "flow": flow}
        clips[path].append(index)
        last = info["dataset"], info["sequence"], info["frame"], info["img2_path"]
    if len({path.lower() for path in clips}) < len(clips):
        raise DataError(
            "two clips would have one name: their pairs' names differ only in characters that files cannot have"
        )
    return clips, pairs


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_./" else "_" for c in str(text)).replace("..", "_").strip("/") or "_"


def _write_clip(job: tuple[dict, list[int], str, Encoding, str], dataset: FlowDataset | None = None) -> None:
    source, members, path, encoding, kind = job
    dataset = dataset or _dataset(json.dumps(source, sort_keys=True))
    infos = [dataset.get_data_info(index) for index in members]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        if kind == "pairs":
            first, second = (_frame(infos[0], key) for key in ("img1", "img2"))
            Path(temporary).write_bytes(encode_pair(first, second, encoding))
        else:
            frames = (_frame(info, "img1") for info in infos)
            last = [_frame(infos[-1], "img2")] * (1 + encoding.repeat_last)
            encode_clip((*frames, *last), encoding, temporary)


_datasets: dict[str, FlowDataset] = {}


def _dataset(config: str) -> FlowDataset:
    """The original in a worker process, built once."""
    if config not in _datasets:
        _datasets[config] = CORE_DATASETS.build({**json.loads(config), "pipeline": []})
    return _datasets[config]


def _frame(info: dict[str, Any], key: str) -> np.ndarray:
    """A frame of a pair: rendered already, or from its file."""
    image = info[key] if key in info else read_image(info[f"{key}_path"])
    if image.dtype != np.uint8:
        raise ConfigError(f"{info[f'{key}_path']}: expected 8 bits a channel, found {image.dtype}")
    return image
