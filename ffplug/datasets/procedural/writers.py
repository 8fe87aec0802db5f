"""Write procedural scenes to disk in the layout of a data set (:mod:`ffplug.datasets.layouts`).

A set is written into a hidden folder beside its target and renamed when it is complete: the target holds all of it or
does not exist. ``PROCEDURAL.json`` at its root marks it, so that no reader takes it for the real data. Scenes are the
units of a bulk job (:mod:`ffplug.bulk`), so that many machines can write one set and an interrupted one goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ffplug.bulk import Failure, Reporter, Work, run_job
from ffplug.bulk.job import JobFolder, differences
from ffplug.datasets.layouts import MARKER, get_layout, read_marker
from ffplug.datasets.procedural.options import SceneOptions
from ffplug.datasets.procedural.scene import Scene, random_scene
from ffplug.datasets.procedural.textures import TextureSource
from ffplug.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

VERSION = 1
"""Raised when the same recipe gives other pictures or other flow than before."""


@dataclass(frozen=True)
class Recipe:
    """Everything that a procedural set on disk follows from.

    Args:
        layout: name of the layout, as :func:`~ffplug.datasets.layouts.layout_names` lists them.
        scenes: number of training scenes; of training pairs for FlyingChairs and KITTI.
        frames: frames per scene; pairs have two.
        size: height and width of the frames in pixels.
        seed: seed of the set, >= 0.
        difficulty: 'demo', 'standard' or 'hard'.
        textures: 'analytic', 'pictures', 'mixed' or a folder with pictures.
        options: what differs from the difficulty: fields of :class:`SceneOptions`, or of what the layout draws from.

    Raises:
        ConfigError: a value is out of its range or a name is unknown.
    """

    layout: str
    scenes: int = 6
    frames: int = 10
    size: tuple[int, int] = (128, 160)
    seed: int = 0
    difficulty: str = "standard"
    textures: str = "mixed"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layout = get_layout(self.layout)
        if len(self.size) != 2 or min(self.size) < 16:
            raise ConfigError(f"size={self.size}: expected height and width of at least 16 pixels")
        for name, least in (("scenes", 1), ("frames", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least {least}")
        object.__setattr__(self, "size", tuple(self.size))
        layout.options(self.difficulty, self.options)

    @property
    def test_scenes(self) -> int:
        """Number of scenes of the part without ground truth."""
        return max(1, self.scenes // 5)

    def scene(self, subset: int, index: int, size: tuple[int, int] | None = None) -> Scene:
        """Return a scene; ``subset`` 0 is the training part, 1 the test or validation part."""
        options = SceneOptions.preset(self.difficulty, **self.options)
        return random_scene((self.seed, subset, index), size or self.size, options, texture_source(self.textures))

    def marker(self) -> dict[str, Any]:
        """Return the content of ``PROCEDURAL.json``; two sets of equal markers are the same."""
        pictures = [path.name for path in texture_source(self.textures).pictures]
        content = {"procedural": True, "version": VERSION, **dataclasses.asdict(self), "pictures": pictures}
        return json.loads(json.dumps(content))


@functools.lru_cache(maxsize=8)
def texture_source(kind: str) -> TextureSource:
    """Return the :class:`TextureSource` of a kind, made once per process."""
    return TextureSource(kind)


class SynthWork(Work):
    """The writing of a procedural set as a bulk job: a unit for each scene, and one for what lies beside them.

    Args:
        recipe: what to write.
        root: the folder to make.
        overwrite: replace another procedural set at ``root``. Anything else there is never touched.
    """

    noun = "scenes"

    def __init__(self, recipe: Recipe, root: str | os.PathLike, overwrite: bool = False) -> None:
        self.recipe = recipe
        self.root = Path(root).absolute()
        self.overwrite = overwrite
        self.job = JobFolder(self.root.with_name(f".{self.root.name}.partial"), "files", "staging")
        self.targets = (self.job.path / "files",)
        self.staging = (self.job.path / "staging",)
        self._record = recipe.marker()
        has_test = get_layout(recipe.layout).has_test
        self._scenes = [(0, index) for index in range(recipe.scenes)]
        self._scenes += [(1, index) for index in range(recipe.test_scenes if has_test else 0)]

    def record(self) -> dict[str, Any]:  # noqa: D102
        return self._record

    def __len__(self) -> int:
        return len(self._scenes) + 1

    def name(self, unit: int) -> str:  # noqa: D102
        if unit == len(self._scenes):
            return "what lies beside the scenes"
        subset, index = self._scenes[unit]
        return f"{('training', 'test')[subset]} scene {index}"

    def size(self, unit: int) -> int:  # noqa: D102
        return int(unit < len(self._scenes))

    def prepare(self, slot: int) -> Callable[[int, Sequence[Path]], list[Failure]]:  # noqa: D102
        layout = get_layout(self.recipe.layout)

        def write(unit: int, folders: Sequence[Path]) -> list[Failure]:
            (folder,) = folders
            if unit < len(self._scenes):
                layout.write_scene(folder, self.recipe, *self._scenes[unit])
            else:
                layout.finish(folder, self.recipe)
                (folder / MARKER).write_text(json.dumps(self._record, indent=2) + "\n")
            return []

        return write

    def is_complete(self) -> bool:
        """Return whether ``root`` holds the set.

        Raises:
            DataError: it holds something else, which is not to be overwritten.
        """
        if not self.root.exists() or (self.root.is_dir() and not any(self.root.iterdir())):
            return False
        found = read_marker(str(self.root)) if self.root.is_dir() else None
        if found == self._record:
            return True
        if found is None:
            raise DataError(
                f"{self.root}: exists and is not a procedural set; choose another folder, or move it away first"
            )
        if not self.overwrite:
            raise DataError(
                f"{self.root}: holds a procedural set of other parameters ({differences(found, self._record)}); choose "
                "another folder, or ask to overwrite it"
            )
        return False

    def complete(self) -> None:
        """Move the set to ``root``.

        Whoever renames the files to a name of its own has them for itself, also from one that was killed in between.
        """
        files, mine = self.targets[0], self.job.path / f"complete.{secrets.token_hex(6)}"
        for left in self.job.path.glob("complete.*"):
            with contextlib.suppress(OSError):
                os.rename(left, files)
        try:
            os.rename(files, mine)
            if self.root.exists() and not self.is_complete() and any(self.root.iterdir()):
                os.rename(self.root, self.job.path / f"old.{secrets.token_hex(6)}")
            os.rename(mine, self.root)
        except FileNotFoundError:
            logger.info("%s: another process completes it", self.root)


def write_procedural(
    recipe: Recipe,
    root: str | os.PathLike,
    workers: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Write a procedural set, or what an interrupted writer of the same recipe has left to do.

    Args:
        recipe: what to write.
        root: the folder to make. If it holds the set of this very recipe, nothing is done.
        workers: processes that render; 0 renders in this one.
        overwrite: replace another procedural set at ``root``, or an unfinished one. Anything else is never touched.
        progress: called with the number of scenes done and to do.

    Returns:
        Whether anything was written.

    Raises:
        DataError: ``root`` exists and is something else, or a scene cannot be written.
    """
    work = SynthWork(recipe, root, overwrite)
    if work.is_complete():
        logger.info("%s holds this procedural set already", root)
    reporter = _Counter(progress or (lambda done, total: None))
    report = run_job(work, reporter, workers=workers, fail_fast=True, replace=overwrite)
    if report.failures:
        raise DataError(str(report.failures[0]))
    return report.done > 0


class _Counter(Reporter):
    """Tells a function how many scenes are done."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self.progress = progress

    def start(self, total: int, done: int) -> None:
        self.total, self.done = total, done
        self.progress(done, total)

    def advance(self, count: int) -> None:
        self.done += count
        if count:
            self.progress(self.done, self.total)

    def fail(self, failure: Failure) -> None:
        logger.warning("%s", failure)

    def note(self, text: str) -> None:
        logger.warning("%s", text)
