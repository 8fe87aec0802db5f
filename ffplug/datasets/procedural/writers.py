"""Write procedural scenes to disk in the layout of a data set (:mod:`ffplug.datasets.layouts`).

A set is written into a hidden folder beside its target and renamed when it is complete: the target holds all of it or
does not exist. ``PROCEDURAL.json`` at its root marks it, so that no reader takes it for the real data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import multiprocessing
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

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
        options: fields of :class:`SceneOptions` that differ from the difficulty's.

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
        get_layout(self.layout)
        if len(self.size) != 2 or min(self.size) < 16:
            raise ConfigError(f"size={self.size}: expected height and width of at least 16 pixels")
        for name, least in (("scenes", 1), ("frames", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least {least}")
        object.__setattr__(self, "size", tuple(self.size))
        SceneOptions.preset(self.difficulty, **self.options)

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


def write_procedural(
    recipe: Recipe,
    root: str | os.PathLike,
    workers: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Write a procedural set.

    Args:
        recipe: what to write.
        root: the folder to make. If it holds the set of this very recipe, nothing is done.
        workers: processes that render; 0 renders in this one.
        overwrite: replace another procedural set at ``root``. Anything else at ``root`` is never touched.
        progress: called with the number of scenes done and to do.

    Returns:
        Whether anything was written.

    Raises:
        DataError: ``root`` exists and is something else.
    """
    root = Path(root)
    marker = recipe.marker()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        found = read_marker(str(root))
        if found == marker:
            logger.info("%s holds this procedural set already", root)
            return False
        if found is None:
            raise DataError(f"{root}: exists and is not a procedural set; choose another folder, or move it away first")
        if not overwrite:
            raise DataError(
                f"{root}: holds a procedural set of other parameters; choose another folder, or ask to overwrite it"
            )
    root.parent.mkdir(parents=True, exist_ok=True)
    with _partial_folder(root) as folder:
        _write_scenes(recipe, folder, workers, progress)
        (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n")
        return _move_into_place(folder, root, marker)


@contextlib.contextmanager
def _partial_folder(root: Path) -> Iterator[Path]:
    """Give a new folder beside ``root``, removed at the end; also remove what killed writers have left there."""
    prefix = f".{root.name}.partial-{socket.gethostname()}-"
    for left in root.parent.glob(f"{prefix}*"):
        if not _is_alive(left.name.removeprefix(prefix)):
            shutil.rmtree(left, ignore_errors=True)
    folder = root.with_name(f"{prefix}{os.getpid()}")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _move_into_place(folder: Path, root: Path, marker: dict[str, Any]) -> bool:
    """Rename the finished folder to ``root``; another process that wrote the same set first wins."""
    if root.is_dir() and read_marker(str(root)) not in (None, marker):
        old = folder.with_name(f"{folder.name}.old")
        root.rename(old)
        folder.rename(root)
        shutil.rmtree(old)
        return True
    try:
        folder.rename(root)
    except OSError:
        if read_marker(str(root)) == marker:
            return False
        raise
    return True


def _write_scenes(recipe: Recipe, folder: Path, workers: int, progress: Callable[[int, int], None] | None) -> None:
    layout = get_layout(recipe.layout)
    jobs = [(0, index) for index in range(recipe.scenes)]
    jobs += [(1, index) for index in range(recipe.test_scenes if layout.has_test else 0)]
    report = progress or (lambda done, total: None)
    report(0, len(jobs))
    if workers > 0:
        # Fresh interpreters: forking a process that runs threads (torch's, OpenCV's) can hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
            futures = [pool.submit(layout.write_scene, folder, recipe, *job) for job in jobs]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    future.result()
                    report(done, len(jobs))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    else:
        for done, job in enumerate(jobs, start=1):
            layout.write_scene(folder, recipe, *job)
            report(done, len(jobs))
    layout.finish(folder, recipe)


def _start_worker() -> None:
    """Use one thread, and end when the parent is killed: a pool's workers would wait for work for ever."""
    cv2.setNumThreads(1)

    def follow_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
