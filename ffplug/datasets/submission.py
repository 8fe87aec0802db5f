"""Benchmark submissions: write the archive that the server takes, and check it before an upload is spent on it."""

from __future__ import annotations

import abc
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from ffplug.datasets.base import FlowDataset, Problem
from ffplug.datasets.formats import (
    decode_flo,
    decode_flo5,
    decode_kitti,
    encode_flo,
    encode_flo5,
    encode_kitti,
    read_bytes,
    read_image,
)
from ffplug.datasets.layouts import join
from ffplug.errors import ConfigError, DataError, did_you_mean
from ffplug.ops import forward_warp_flow
from ffplug.registry import DATASETS
from ffplug.structures import FlowDataSample

SPRING_FRAMES = {
    "0003": 131,
    "0019": 111,
    "0028": 39,
    "0029": 135,
    "0031": 73,
    "0034": 47,
    "0035": 120,
    "0040": 111,
    "0042": 116,
    "0046": 117,
}
"""Frames of Spring's test scenes."""

KITTI_LIMITS = (-512.0, 65535 / 64 - 512)
"""Least and largest flow component that KITTI's format can hold, pixels."""


class _Sink(abc.ABC):
    """Where the files of a submission go; nothing is at the target before :meth:`commit`."""

    @abc.abstractmethod
    def write(self, member: str, data: bytes) -> None:
        """Add a file."""

    @abc.abstractmethod
    def commit(self) -> None:
        """Put everything in its place at once."""

    @abc.abstractmethod
    def discard(self) -> None:
        """Remove what was written."""


class _ZipSink(_Sink):
    def __init__(self, target: Path) -> None:
        self.target = target
        target.parent.mkdir(parents=True, exist_ok=True)
        self.partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        self.archive = zipfile.ZipFile(self.partial, "w", zipfile.ZIP_DEFLATED)

    def write(self, member: str, data: bytes) -> None:
        # PNG and HDF5 are compressed already.
        kind = zipfile.ZIP_DEFLATED if member.endswith(".flo") else zipfile.ZIP_STORED
        self.archive.writestr(member, data, kind)

    def commit(self) -> None:
        self.archive.close()
        os.replace(self.partial, self.target)

    def discard(self) -> None:
        self.archive.close()
        self.partial.unlink(missing_ok=True)


class _FolderSink(_Sink):
    def __init__(self, target: Path) -> None:
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise DataError(f"{target}: exists already; choose a new folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.target = target
        self.partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))

    def write(self, member: str, data: bytes) -> None:
        path = self.partial / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def commit(self) -> None:
        self.partial.chmod(0o755)
        os.replace(self.partial, self.target)

    def discard(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)


class FlowSubmission(abc.ABC):
    """Writes one benchmark's archive. Use it as a context: the archive appears when the block ends without an error.

    Args:
        out: the archive, or for Spring the folder, to write.
        partial: accept another number or size of frames than the benchmark has, for a try on a part of the data or
            on a procedural stand-in. The server would refuse such an archive.

    Raises:
        DataError: ``out`` has the wrong suffix, or exists as something that is not replaced.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = (".zip",)

    def __init__(self, out: str | os.PathLike, partial: bool = False) -> None:
        self.out = Path(out)
        if self.out.suffix.lower() not in self.suffixes:
            expected = " or ".join(suffix or "no suffix (a folder)" for suffix in self.suffixes)
            raise DataError(f"{self.out}: a {self.title} submission ends in {expected}")
        self.partial = partial
        self.members: set[str] = set()
        self._sink = self._open()

    def _open(self) -> _Sink:
        return _ZipSink(self.out)

    def __enter__(self) -> FlowSubmission:
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        try:
            if kind is None:
                self._check_members()
                self._finish()
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what was written so far; a finished archive stays."""
        self._sink.discard()

    def _finish(self) -> None:
        self._sink.commit()

    def add(self, sample: FlowDataSample, flow: np.ndarray) -> None:
        """Add the flow of one pair.

        Args:
            sample: the test sample, with its metainfo.
            flow: 2×H×W or H×W×2, pixels, of the frame's own size.

        Raises:
            DataError: wrong size, a value that is not finite, or the pair was added before.
        """
        flow = np.asarray(flow, np.float32)
        if flow.ndim == 3 and flow.shape[0] == 2 and flow.shape[2] != 2:
            flow = flow.transpose(1, 2, 0)
        member = self.member(sample)
        shape = (*sample.ori_shape, 2)
        if flow.shape != shape:
            raise DataError(f"{member}: expected flow of {shape} (H, W, 2) as the frame, found {flow.shape}")
        if not self.partial and (wrong := self.wrong_size(flow.shape[1], flow.shape[0])):
            raise DataError(f"{member}: {wrong}")
        if not np.isfinite(flow).all():
            raise DataError(f"{member}: the flow holds {int((~np.isfinite(flow)).sum())} values that are not finite")
        if member in self.members:
            raise DataError(f"{member}: was added twice")
        self._sink.write(member, self.encode(np.ascontiguousarray(flow)))
        self.members.add(member)

    def _check_members(self) -> None:
        if not self.members:
            raise DataError(f"{self.out}: nothing was added to the submission")
        if not self.partial and (problems := self.count_problems(self.members)):
            more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
            raise DataError(f"{self.out}: not written: {problems[0]}{more}")

    @classmethod
    def datasets(cls) -> list[dict[str, Any]]:
        """Configs of the test sets that the benchmark asks for, without ``data_root``."""
        raise NotImplementedError

    @classmethod
    @abc.abstractmethod
    def member(cls, sample: FlowDataSample) -> str:
        """The file's name in the archive."""

    @classmethod
    @abc.abstractmethod
    def encode(cls, flow: np.ndarray) -> bytes:
        """The file's content."""

    @classmethod
    @abc.abstractmethod
    def decode(cls, data: bytes, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Flow and mask of a file's content."""

    @classmethod
    @abc.abstractmethod
    def count_problems(cls, members: set[str]) -> list[str]:
        """What the list of files lacks, or has that it should not."""

    @classmethod
    @abc.abstractmethod
    def wrong_size(cls, width: int, height: int) -> str | None:
        """Why frames of this size can't be the benchmark's, or None."""


class SintelSubmission(FlowSubmission):
    """Sintel: ``{clean,final}/<scene>/frame%04d.flo``, 552 files per pass, 1024×436.

    The server takes one ``.lzma`` file that the data set's own ``bundler`` program makes. Without it, the folders go
    into a ``.zip`` to bundle later.

    Args:
        out: ``.zip``, or ``.lzma`` with a bundler.
        partial: see :class:`FlowSubmission`.
        bundler: path of the ``bundler`` program that comes with the data set.
    """

    name = "sintel"
    title = "Sintel"
    suffixes = (".zip", ".lzma")
    pairs = 552

    def __init__(self, out: str | os.PathLike, partial: bool = False, bundler: str | os.PathLike | None = None) -> None:
        suffix = Path(out).suffix.lower()
        if (suffix == ".lzma") != (bundler is not None):
            raise DataError(
                f"{out}: an .lzma file is what the data set's bundler program makes, and nothing else is: give "
                "--bundler with .lzma, or write a .zip without it"
            )
        if bundler is not None and not os.access(bundler, os.X_OK):
            raise DataError(f"{bundler}: no such program (or not executable); it lies in the data set's bundler folder")
        self.bundler = None if bundler is None else Path(bundler)
        super().__init__(out, partial)

    def _open(self) -> _Sink:
        if self.bundler is None:
            return _ZipSink(self.out)
        return _FolderSink(self.out.with_name(f".{self.out.name}.{os.getpid()}.bundle"))

    def _finish(self) -> None:
        self._sink.commit()
        if self.bundler is None:
            return
        folder = self._sink.target
        made = self.out.with_name(f".{self.out.stem}.{os.getpid()}.tmp.lzma")
        try:
            command = [str(self.bundler.resolve()), str(folder / "clean"), str(folder / "final"), str(made)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0 or not made.is_file():
                said = " ".join((done.stderr or done.stdout).split())[-300:]
                raise DataError(f"{self.bundler}: failed with exit code {done.returncode}: {said}")
            os.replace(made, self.out)
        finally:
            made.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)

    @classmethod
    def datasets(cls) -> list[dict[str, Any]]:  # noqa: D102 (see the base class, here and below)
        return [dict(type="ffplug.SintelDataset", split="test", render=render) for render in ("clean", "final")]

    @classmethod
    def member(cls, sample: FlowDataSample) -> str:  # noqa: D102
        return f"{sample.dataset.split('/')[1]}/{sample.sequence}/frame{sample.frame:04d}.flo"

    @classmethod
    def encode(cls, flow: np.ndarray) -> bytes:  # noqa: D102
        return encode_flo(flow, np.ones(flow.shape[:2], np.float32))

    decode = staticmethod(decode_flo)

    @classmethod
    def count_problems(cls, members: set[str]) -> list[str]:  # noqa: D102
        problems = _strangers(members, r"(clean|final)/[^/]+/frame\d{4}\.flo")
        for render in ("clean", "final"):
            found = sum(member.startswith(f"{render}/") for member in members)
            if found != cls.pairs:
                problems.append(f"{render}: expected {cls.pairs} files, found {found}")
        scenes: dict[str, list[int]] = {}
        for member in sorted(members):
            if match := re.fullmatch(r"(.*)/frame(\d{4})\.flo", member):
                scenes.setdefault(match[1], []).append(int(match[2]))
        for scene, frames in scenes.items():
            if frames != list(range(1, len(frames) + 1)):
                problems.append(f"{scene}: frames must be numbered from 0001 without a gap")
        return problems

    @classmethod
    def wrong_size(cls, width: int, height: int) -> str | None:  # noqa: D102
        return None if (width, height) == (1024, 436) else f"expected 1024×436 (W×H), found {width}×{height}"


class _KITTISubmission(FlowSubmission):
    """KITTI: a zip with ``flow/%06d_10.png``, 16 bits, every pixel valid."""

    count: ClassVar[int]
    dataset: ClassVar[str]

    def add(self, sample: FlowDataSample, flow: np.ndarray) -> None:
        """Add the flow of one pair; components beyond -512..+511.98 px can't be written and are refused."""
        low, high = KITTI_LIMITS
        if np.isfinite(flow).all() and ((np.asarray(flow) < low) | (np.asarray(flow) > high)).any():
            worst = float(np.abs(flow).max())
            raise DataError(
                f"{self.member(sample)}: a component of {worst:.0f} px lies beyond what the format holds (±512 px)"
            )
        super().add(sample, flow)

    @classmethod
    def datasets(cls) -> list[dict[str, Any]]:
        return [dict(type=f"ffplug.{cls.dataset}", split="test")]

    @classmethod
    def member(cls, sample: FlowDataSample) -> str:
        return f"flow/{sample.sequence}_10.png"

    @classmethod
    def encode(cls, flow: np.ndarray) -> bytes:
        return encode_kitti(flow, np.ones(flow.shape[:2], np.float32))

    decode = staticmethod(decode_kitti)

    @classmethod
    def count_problems(cls, members: set[str]) -> list[str]:
        expected = {f"flow/{number:06d}_10.png" for number in range(cls.count)}
        problems = [f"unexpected file {member}" for member in sorted(members - expected)]
        if missing := sorted(expected - members):
            problems.append(f"expected {cls.count} files, {len(missing)} are missing, the first is {missing[0]}")
        return problems

    @classmethod
    def wrong_size(cls, width: int, height: int) -> str | None:
        fits = 1220 <= width <= 1250 and 368 <= height <= 378
        return None if fits else f"expected a frame of about 1242×375 (W×H), found {width}×{height}"


class KITTI2015Submission(_KITTISubmission):
    """KITTI 2015: 200 files."""

    name, title, count, dataset = "kitti2015", "KITTI 2015", 200, "KITTI2015Dataset"


class KITTI2012Submission(_KITTISubmission):
    """KITTI 2012: 195 files."""

    name, title, count, dataset = "kitti2012", "KITTI 2012", 195, "KITTI2012Dataset"


class SpringSubmission(FlowSubmission):
    """Spring: a folder (or zip) of ``<scene>/flow_{FW,BW}_{left,right}/…%04d.flo5``, 3,960 files of 1920×1080.

    The benchmark's own subsampling tool then turns the folder into the one HDF5 file to upload.
    """

    name = "spring"
    title = "Spring"
    suffixes = ("", ".zip")

    def _open(self) -> _Sink:
        return _ZipSink(self.out) if self.out.suffix else _FolderSink(self.out)

    @classmethod
    def datasets(cls) -> list[dict[str, Any]]:  # noqa: D102
        return [dict(type="ffplug.SpringDataset", split="test", cameras=("left", "right"), directions=("FW", "BW"))]

    @classmethod
    def member(cls, sample: FlowDataSample) -> str:  # noqa: D102
        scene, kind, frame = sample.sample_id.split("/")
        return f"{scene}/{kind}/{kind}_{frame}.flo5"

    @classmethod
    def encode(cls, flow: np.ndarray) -> bytes:  # noqa: D102
        return encode_flo5(flow, np.ones(flow.shape[:2], np.float32))

    decode = staticmethod(decode_flo5)

    @classmethod
    def count_problems(cls, members: set[str]) -> list[str]:  # noqa: D102
        expected = {
            f"{scene}/flow_{way}_{side}/flow_{way}_{side}_{frame:04d}.flo5"
            for scene, frames in SPRING_FRAMES.items()
            for way, first in (("FW", 1), ("BW", 2))
            for side in ("left", "right")
            for frame in range(first, first + frames - 1)
        }
        problems = [f"unexpected file {member}" for member in sorted(members - expected)]
        if missing := sorted(expected - members):
            problems.append(f"expected {len(expected)} files, {len(missing)} are missing, the first is {missing[0]}")
        return problems

    @classmethod
    def wrong_size(cls, width: int, height: int) -> str | None:  # noqa: D102
        return None if (width, height) == (1920, 1080) else f"expected 1920×1080 (W×H), found {width}×{height}"


SUBMISSIONS: dict[str, type[FlowSubmission]] = {
    cls.name: cls for cls in (SintelSubmission, KITTI2012Submission, KITTI2015Submission, SpringSubmission)
}


def _strangers(members: set[str], pattern: str) -> list[str]:
    return [f"unexpected file {member}" for member in sorted(members) if not re.fullmatch(pattern, member)]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Names and reader of the files in a zip or a folder."""
    if path.is_dir():
        names = [entry.relative_to(path).as_posix() for entry in sorted(path.rglob("*")) if entry.is_file()]
        yield names, lambda name: read_bytes(path / name)
        return
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.suffix.lower() in (".lzma", ".hdf5"):
        raise DataError(
            f"{path}: only the benchmark's server reads this; check the .zip or the folder from which it was made"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            yield [name for name in archive.namelist() if not name.endswith("/")], archive.read
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: expected a zip archive, found a damaged or another file ({error})") from None


def _guess(names: list[str], path: Path) -> str:
    if any(name.endswith(".flo5") for name in names):
        return "spring"
    if any(name.endswith(".flo") for name in names):
        return "sintel"
    pictures = sum(bool(re.fullmatch(r"flow/\d{6}_10\.png", name)) for name in names)
    if pictures:
        return "kitti2012" if pictures == KITTI2012Submission.count else "kitti2015"
    shown = ", ".join(names[:4]) or "nothing"
    raise DataError(f"{path}: not a submission of {', '.join(SUBMISSIONS)}: it holds {shown}")


def check_submission(
    path: str | os.PathLike,
    benchmark: str | None = None,
    data_root: str | None = None,
    partial: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[str, list[Problem]]:
    """Check an archive before it is uploaded: number, names, types and sizes of its files, finite and plausible values.

    Args:
        path: zip or folder.
        benchmark: a key of :data:`SUBMISSIONS`; None tells it by the content (KITTI by the number of files).
        data_root: the benchmark's data; with KITTI, sizes are compared with the test frames.
        partial: accept another number or size of frames.
        progress: called with the number of files done and to do.

    Returns:
        The benchmark's name and the problems.

    Raises:
        DataError: no archive that can be read.
    """
    path = Path(path)
    problems: list[Problem] = []
    with _opened(path) as (names, read):
        cls = submission_type(benchmark or _guess(names, path))
        if not partial:
            problems += [Problem(str(path), message) for message in cls.count_problems(set(names))]
        for done, name in enumerate(names, start=1):
            try:
                _check_member(cls, name, read(name), data_root, partial)
            except (DataError, zipfile.BadZipFile) as error:
                problems.append(Problem(name, str(error).removeprefix(f"{name}: ")))
            if progress:
                progress(done, len(names))
    return cls.name, problems


def _check_member(cls: type[FlowSubmission], name: str, data: bytes, data_root: str | None, partial: bool) -> None:
    flow, valid = cls.decode(data, name)
    height, width = flow.shape[:2]
    if not partial and (wrong := cls.wrong_size(width, height)):
        raise DataError(f"{name}: {wrong}")
    if data_root and issubclass(cls, _KITTISubmission):
        frames = [join(data_root, "testing", kind, name.split("/")[-1]) for kind in ("image_2", "colored_0", "image_0")]
        frame = next((frame for frame in frames if os.path.exists(frame)), frames[0])
        size = read_image(frame).shape[1::-1]
        if size != (width, height):
            raise DataError(f"{name}: expected {size[0]}×{size[1]} (W×H) as {frame}, found {width}×{height}")
    if not valid.all():
        raise DataError(f"{name}: {int((valid == 0).sum())} pixels are invalid or not finite; every pixel needs a flow")
    largest = float(np.abs(flow).max())
    if largest > 2 * max(width, height):
        raise DataError(f"{name}: a component of {largest:.0f} px in a frame of {width}×{height} can't be right")


def submission_type(name: str) -> type[FlowSubmission]:
    """Return the submission class of a benchmark.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in SUBMISSIONS:
        raise ConfigError(
            f"benchmark {name!r}: expected one of {', '.join(SUBMISSIONS)}{did_you_mean(name, SUBMISSIONS)}"
        )
    return SUBMISSIONS[name]


def write_submission(
    model: torch.nn.Module,
    submission: FlowSubmission,
    data_root: str,
    iterations: int | None = None,
    warm_start: bool = False,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Predict a benchmark's test frames and write the submission; nothing is left at its place when this fails.

    Args:
        model: a flow model with ``predict_flow``, on its device.
        submission: where to write, not yet entered.
        data_root: the benchmark's data.
        iterations: None = the model's own for tests.
        warm_start: start each pair from the flow of the one before, projected forward, within a sequence.
        workers: processes that read frames; 0 reads in this one.
        progress: called with the number of pairs done and to do.

    Returns:
        The number of pairs.

    Raises:
        DataError: the data is incomplete, or the prediction of a pair is not finite.
    """
    device = next(model.parameters()).device
    with submission:
        parts: list[FlowDataset] = [DATASETS.build(dict(cfg, data_root=data_root)) for cfg in submission.datasets()]
        total, done = sum(map(len, parts)), 0
        for part in parts:
            previous: tuple[str, torch.Tensor] | None = None
            for batch in DataLoader(part, num_workers=workers, collate_fn=pseudo_collate):
                frames, sample = batch["inputs"][0].to(device), batch["data_samples"][0]
                # A pair follows the one before when it starts where that one ended.
                follows = warm_start and previous is not None and previous[0] == sample.img1_path
                start = forward_warp_flow(previous[1]) if follows else None
                out = model.predict_flow(frames[:1].float(), frames[1:].float(), iterations=iterations, flow_init=start)
                previous = sample.img2_path, out["flow_low"]
                submission.add(sample, out["flow"][0].float().cpu().numpy())
                done += 1
                if progress:
                    progress(done, total)
    return total
