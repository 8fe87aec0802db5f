"""Inference as a bulk job: what its units are, and how one is done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from mmengine.config import Config, ConfigDict

from ffplug.apis.inferencer import FlowInferencer, find_model
from ffplug.apis.pair_list import PairList
from ffplug.apis.sources import FrameReader, FrameSequence, find_sequences
from ffplug.apis.video import VideoFrames
from ffplug.apis.weights import sha256
from ffplug.bulk import Failure, Work
from ffplug.bulk.job import JobFolder, differences, one_line, read_record
from ffplug.errors import ConfigError, DataError
from ffplug.files import atomic_path
from ffplug.version import __version__

MARKER = "INFERENCE.json"
"""The file in an output folder that says that its results are complete, and what they were made from."""
JOB_FOLDER = ".ffplug-job"


class Source(Protocol):
    """Where pairs come from, in units."""

    def __len__(self) -> int:
        """Number of units."""

    def name(self, unit: int) -> str:
        """A unit's name."""

    def size(self, unit: int) -> int:
        """Number of pairs of a unit."""

    def record(self) -> dict[str, Any]:
        """What the pairs are."""

    def sequences(self, unit: int, opened: Callable[[FrameSequence], FrameSequence]) -> Iterable[FrameSequence]:
        """The frames of a unit; ``opened`` opens a video as the model wants it."""


class ListSource:
    """The pairs of a list on disk.

    Args:
        path: of the list; see :class:`~ffplug.apis.pair_list.PairList`.
        chunk: pairs in a unit.
    """

    def __init__(self, path: str, chunk: int) -> None:
        self.given = path
        self.pairs = PairList(path, chunk)

    def __len__(self) -> int:
        return len(self.pairs.offsets)

    def name(self, unit: int) -> str:  # noqa: D102
        first = unit * self.pairs.chunk
        return f"pairs {first + 1} to {first + self.size(unit)} of {self.given}"

    def size(self, unit: int) -> int:  # noqa: D102
        return min(self.pairs.chunk, self.pairs.count - unit * self.pairs.chunk)

    def record(self) -> dict[str, Any]:  # noqa: D102
        pairs = self.pairs
        return {"inputs": [self.given], "pairs": pairs.count, "content": pairs.sha256, "chunk": pairs.chunk}

    def sequences(  # noqa: D102
        self, unit: int, opened: Callable[[FrameSequence], FrameSequence]
    ) -> Iterable[FrameSequence]:
        for image1, image2, name in self.pairs.read(unit):
            yield FrameSequence("", [image1, image2], 2, (name, name))


class SequenceSource:
    """The successive frames of folders, globs and videos.

    Args:
        inputs: as on the command line.
        chunk: pairs in a unit, or None for whole sequences.
    """

    def __init__(self, inputs: Sequence[str], chunk: int | None) -> None:
        self.given = list(inputs)
        self.chunk = chunk
        paths = [os.path.abspath(item) for item in inputs]
        self._sequences = find_sequences(paths[0] if len(paths) == 1 else paths)
        self._units: list[tuple[int, int, int]] = []
        for index, sequence in enumerate(self._sequences):
            frames = sequence.count
            if frames is None and isinstance(sequence.frames, VideoFrames):
                frames = sequence.frames.count_packets()
            pairs = max(1, (frames or 0) - 1)
            step = chunk or pairs
            self._units += [(index, start, min(start + step, pairs)) for start in range(0, pairs, step)]
        self._reader: tuple[int, FrameReader] | None = None

    def __len__(self) -> int:
        return len(self._units)

    def name(self, unit: int) -> str:  # noqa: D102
        index, start, stop = self._units[unit]
        return f"pairs {start} to {stop - 1} of {self._sequences[index].name or self.given[0]}"

    def size(self, unit: int) -> int:  # noqa: D102
        _, start, stop = self._units[unit]
        return stop - start

    def record(self) -> dict[str, Any]:  # noqa: D102
        names = [(sequence.name, sequence.count, sequence.names) for sequence in self._sequences]
        pairs = sum(map(self.size, range(len(self))))
        return {"inputs": self.given, "pairs": pairs, "content": _hash(names), "chunk": self.chunk}

    def sequences(  # noqa: D102
        self, unit: int, opened: Callable[[FrameSequence], FrameSequence]
    ) -> Iterable[FrameSequence]:
        index, start, stop = self._units[unit]
        sequence = opened(self._sequences[index])
        if start == 0 and (unit + 1 == len(self) or self._units[unit + 1][0] != index):
            return [sequence]
        if self._reader is None or self._reader[0] != index:
            self._reader = index, FrameReader(sequence.frames)
        return [sequence.part(start, stop, self._reader[1].read(start, stop))]


@dataclass(frozen=True)
class Output:
    """A kind of file that is written for each pair.

    Attributes:
        folder: where to.
        suffix: of the files.
        picture: whether they are pictures of the flow, not flow files.
    """

    folder: Path
    suffix: str
    picture: bool


class InferWork(Work):
    """Flow files and pictures of many pairs.

    Args:
        pairs: where they come from.
        outputs: what to write.
        model: a model's or recipe's name, a config file or a work folder; see
            :class:`~ffplug.apis.inferencer.FlowInferencer`.
        checkpoint: weights, as there.
        max_flow: length in pixels that gets full colour in pictures.
        threads: of each worker on the CPU. Results on the CPU depend on it in the last bits.
        seed: of random weights.
        options: of :class:`~ffplug.apis.inferencer.FlowInferencer`.

    Raises:
        CheckpointError: no weights.
        ConfigError: nothing to write, or two outputs to one place.
    """

    noun = "pairs"

    def __init__(
        self,
        pairs: Source,
        outputs: Sequence[Output],
        model: str | None,
        checkpoint: str | None,
        max_flow: float | None = None,
        threads: int = 1,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if not outputs:
            raise ConfigError("nothing to write: give --out or --show, a folder each")
        if len({(output.folder, output.suffix) for output in outputs}) < len(outputs):
            raise ConfigError(f"{outputs[0].folder}: flow files and pictures would overwrite each other: use two")
        if threads < 1:
            raise ConfigError(f"threads={threads}: expected 1 or more")
        self.pairs = pairs
        self.outputs = tuple(outputs)
        self.max_flow = max_flow
        self.threads = threads
        self.seed = seed
        self.options = options
        self.device = options.get("device")
        self.targets = tuple(output.folder for output in outputs)
        self.staging = tuple(target / JOB_FOLDER / "staging" for target in self.targets)
        self.job = JobFolder(self.targets[0] / JOB_FOLDER, "staging")
        found, weights = find_model(model, checkpoint, options.get("random_weights", False))
        self._weights = weights and weights.absolute()
        # Workers may run in another folder, so they get the config itself.
        self._model = _model_config(found)
        self._record = self._make_record(found if isinstance(found, str | os.PathLike) else None)

    def _make_record(self, name: str | os.PathLike | None) -> dict[str, Any]:
        record = {
            "ffplug": __version__,
            **self.pairs.record(),
            "model": name and os.fspath(name),
            "config": _hash(self._model),
            "weights": sha256(self._weights) if self._weights else f"random, seed {self.seed}",
            "threads": self.threads,
            "outputs": [output.suffix for output in self.outputs],
            "max_flow": self.max_flow,
            **{key: value for key, value in self.options.items() if key not in ("device", "random_weights")},
        }
        return json.loads(json.dumps(record))

    def record(self) -> dict[str, Any]:  # noqa: D102
        return self._record

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, unit: int) -> str:  # noqa: D102
        return self.pairs.name(unit)

    def size(self, unit: int) -> int:  # noqa: D102
        return self.pairs.size(unit)

    def prepare(self, slot: int) -> Callable[[int, Sequence[Path]], list[Failure]]:  # noqa: D102
        for folder in self.staging[1:]:
            if folder.parent != self.job.path:
                folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.deterministic = True
        torch.manual_seed(self.seed)
        device = self.device
        if device in (None, "cuda") and torch.cuda.is_available():
            device = f"cuda:{slot % torch.cuda.device_count()}"
        inferencer = FlowInferencer(self._model, self._weights, **{**self.options, "device": device})

        def infer(unit: int, folders: Sequence[Path]) -> list[Failure]:
            failures: list[Failure] = []

            def fail(name: str, error: DataError) -> None:
                failures.append(Failure(name, one_line(error)))

            for result in inferencer.run(self.pairs.sequences(unit, inferencer.opened), fail):
                for output, folder in zip(self.outputs, folders, strict=True):
                    path = folder / f"{result.name}{output.suffix}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    result.show(path, self.max_flow) if output.picture else result.write(path)
            return failures

        return infer

    def is_complete(self) -> bool:
        """Return whether the results of this very job are all there.

        Raises:
            DataError: those of another one are.
        """
        marker = self.targets[0] / MARKER
        found = read_record(marker)
        if found in (None, self._record):
            return found is not None
        raise DataError(
            f"{marker}: the folder holds the results of another job ({differences(found, self._record)}); choose "
            "another folder"
        )

    def complete(self) -> None:
        """Write the marker, with all that the results were made from."""
        with atomic_path(self.targets[0] / MARKER) as temporary:
            temporary.write_text(json.dumps(self._record, indent=2) + "\n")
        for target in self.targets[1:]:
            if target / JOB_FOLDER != self.job.path:
                shutil.rmtree(target / JOB_FOLDER, ignore_errors=True)


def _model_config(found: str | os.PathLike | Mapping[str, Any]) -> dict[str, Any]:
    from ffplug.config import load_config

    config = load_config(found) if isinstance(found, str | os.PathLike) else found
    model = config.get("model", config)
    return model.to_dict() if isinstance(model, Config | ConfigDict) else dict(model)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
