"""The released data set of STSS: frames of Unreal scenes as arrays."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ffplug.datasets.base import Problem, ScannedDataset, choose
from ffplug.datasets.layouts import join
from ffplug.datasets.procedural.writers import Recipe, write_procedural
from ffplug.errors import DataError, did_you_mean
from ffplug_stss.datasets.records import DEPTHS
from ffplug_stss.registry import DATASETS
from ffplug_stss.sequences import EXTRAPOLATED, SHADED

SPLITS = ("train", "test")
KINDS = {"Warp": EXTRAPOLATED, "NoWarp": SHADED}
STRETCHED = ("Lewis",)
"""Scenes whose depth is stretched to 0..1 frame by frame; that of the others is cut."""
BROKEN = 1427
"""Left out of every training sequence, as published: a frame of one of them is damaged."""

_RECORD = re.compile(r"compressed\.(\d+)\.(Warp|NoWarp)\.npy")


@DATASETS.register_module()
class STSSDataset(ScannedDataset):
    """Frames to produce, with the true ones, in the layout of the released data.

    ``SCENE/SEQUENCE/NPY/compressed.0007.Warp.npy`` (an extrapolated frame; ``NoWarp``: a shaded one) and
    ``SCENE/SEQUENCE/HR/compressedHR.0007.npy``; sequences whose name begins with ``train`` (or is ``validation``, as on
    the site) are for training.

    Args:
        data_root: the folder of the scenes.
        split: ``train`` or ``test``.
        scenes: names of scenes; None takes all that are there.
        kinds: ``SF``, ``EF`` or both.
        depth: ``clip``, ``scale`` (each frame to 0..1), or ``auto``: ``scale`` for Lewis, ``clip`` for all others.
        pipeline: transforms; None loads and packs whole frames.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Raises:
        ConfigError: an argument is none of the above.
        DataError: the folder is missing, or a file in it.

    Example:
        dict(type="ffplug_stss.STSSDataset", data_root="data/STSS")
    """

    layout = "stss"
    title = "STSS"
    noun = "frames"
    default_pipeline = (dict(type="ffplug_stss.LoadRecord"), dict(type="ffplug_stss.PackSupersample"))

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        scenes: str | Sequence[str] | None = None,
        kinds: str | Sequence[str] = (SHADED, EXTRAPOLATED),
        depth: str = "auto",
        pipeline: Sequence[dict | Callable] | None = None,
        **kwargs: Any,
    ) -> None:
        self.split = choose("split", split, SPLITS)
        self.scenes = (scenes,) if isinstance(scenes, str) else scenes
        self.kinds = tuple(
            choose("kinds", kind, (SHADED, EXTRAPOLATED)) for kind in ((kinds,) if isinstance(kinds, str) else kinds)
        )
        self.depth = choose("depth", depth, ("auto", *DEPTHS))
        super().__init__(data_root, pipeline, **kwargs)

    @classmethod
    def write_example(cls, folder: str | os.PathLike) -> None:
        """Write a small procedural set in this layout to a new folder, for tests and examples."""
        options = dict(objects=(2, 4), poles=(1, 1), samples=1)
        write_procedural(Recipe(cls.layout, 1, 2, (16, 24), textures="analytic", options=options), folder)

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return f"{self.title}/{self.split}"

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the frames, scene by scene."""
        self.require("")
        there = self.folders("")
        for scene in self.scenes or there:
            if scene not in there:
                near = did_you_mean(scene, there) or f"; there are {', '.join(there) or 'none'}"
                raise DataError(f"{self.data_root}: no scene {scene!r}{near}")
            for sequence in self.folders(scene):
                training = sequence.lower().startswith("train") or sequence.lower() == "validation"
                if training == (self.split == "train"):
                    yield from self._scan_sequence(scene, sequence, problems)

    def _scan_sequence(self, scene: str, sequence: str, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        folder = join(scene, sequence)
        targets = self.numbered(join(folder, "HR"), r"compressedHR\.(\d+)\.npy")
        for file in self.files(join(folder, "NPY")):
            match = _RECORD.fullmatch(file)
            if match is None:
                continue
            frame, kind = int(match[1]), KINDS[match[2]]
            if kind not in self.kinds or (self.split == "train" and frame == BROKEN):
                continue
            if frame not in targets:
                missing = join(folder, "HR", f"compressedHR.{match[1]}.npy")
                problems.append(Problem(missing, "this true frame is missing", folder))
                continue
            scaled = self.depth == "scale" or (self.depth == "auto" and scene in STRETCHED)
            yield dict(
                record_path=join(folder, "NPY", file),
                target_path=join(folder, "HR", targets[frame]),
                dataset=f"{self.title}/{scene}",
                sequence=folder,
                frame=frame,
                sample_id=f"{folder}/{frame:04d}",
                kind=kind,
                depth="scale" if scaled else "clip",
            )

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:
        """Put ``data_root`` before the paths of an entry."""
        for key in ("record_path", "target_path"):
            info[key] = join(self.data_root, info[key])
        return info
