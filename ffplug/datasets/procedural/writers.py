"""Write procedural scenes to disk in the very layouts of the public data sets.

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
import numpy as np

from ffplug.datasets.formats import encode_pfm, write_bytes, write_flow, write_image, write_mask
from ffplug.datasets.layouts import MARKER, read_marker
from ffplug.datasets.procedural.options import SceneOptions
from ffplug.datasets.procedural.scene import Scene, View, random_scene
from ffplug.datasets.procedural.textures import TextureSource
from ffplug.datasets.sintel import FRAMES, VALIDATION_SCENES
from ffplug.errors import ConfigError, DataError, did_you_mean

logger = logging.getLogger(__name__)

VERSION = 1
"""Raised when the same recipe gives other pictures or other flow than before."""

SINTEL_TRAINING = [name for name in sorted(FRAMES) if name not in VALIDATION_SCENES]
for _place, _scene in enumerate(VALIDATION_SCENES):
    SINTEL_TRAINING.insert(3 * _place + 2, _scene)
"""Sintel's scene names in the order in which they are used, every third one of the validation split."""
SINTEL_TEST = ["ambush_1", "ambush_3", "bamboo_3", "cave_3", "market_1", "market_4", "mountain_2"]
KITTI_SIZES = ((375, 1242), (376, 1241), (374, 1238), (370, 1226), (370, 1224))
"""Height and width of KITTI 2015's frames; a procedural set has the same ones in its own scale."""


@dataclass(frozen=True)
class Recipe:
    """Everything that a procedural set on disk follows from.

    Args:
        layout: name of the layout, a key of :data:`WRITERS`.
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
        if self.layout not in WRITERS:
            near = did_you_mean(self.layout, WRITERS)
            raise ConfigError(f"layout={self.layout!r}: expected one of {', '.join(WRITERS)}{near}")
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


@dataclass(frozen=True)
class LayoutWriter:
    """How a layout of :data:`ffplug.datasets.layouts.LAYOUTS` is written.

    Attributes:
        scene: writes one scene: ``scene(folder, recipe, subset, index)``.
        finish: writes what comes after the scenes, if anything: ``finish(folder, recipe)``.
        has_test: whether there is a second part, for testing or validation.
    """

    scene: Callable[[Path, Recipe, int, int], None]
    finish: Callable[[Path, Recipe], None] | None = None
    has_test: bool = True


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
    writer = WRITERS[recipe.layout]
    jobs = [(0, index) for index in range(recipe.scenes)]
    jobs += [(1, index) for index in range(recipe.test_scenes if writer.has_test else 0)]
    report = progress or (lambda done, total: None)
    report(0, len(jobs))
    if workers > 0:
        # Fresh interpreters: forking a process that runs threads (torch's, OpenCV's) can hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
            futures = [pool.submit(writer.scene, folder, recipe, *job) for job in jobs]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    future.result()
                    report(done, len(jobs))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    else:
        for done, job in enumerate(jobs, start=1):
            writer.scene(folder, recipe, *job)
            report(done, len(jobs))
    if writer.finish:
        writer.finish(folder, recipe)


def _start_worker() -> None:
    """Use one thread, and end when the parent is killed: a pool's workers would wait for work for ever."""
    cv2.setNumThreads(1)

    def follow_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()


def _name(names: list[str], index: int) -> str:
    return names[index] if index < len(names) else f"extra_{index + 1:03d}"


def _write_sintel(folder: Path, recipe: Recipe, subset: int, index: int) -> None:
    part, names = (("training", SINTEL_TRAINING), ("test", SINTEL_TEST))[subset]
    name, scene = _name(names, index), recipe.scene(subset, index)
    for frame in range(1, recipe.frames + 1):
        view = scene.view(frame)
        write_image(folder / part / "clean" / name / f"frame_{frame:04d}.png", view.image)
        write_image(folder / part / "final" / name / f"frame_{frame:04d}.png", scene.finish(view))
        if part == "test":
            continue
        write_mask(folder / part / "invalid" / name / f"frame_{frame:04d}.png", np.zeros(scene.size, bool))
        if frame < recipe.frames:
            flow, occluded = scene.flow(view, frame + 1)
            write_flow(folder / part / "flow" / name / f"frame_{frame:04d}.flo", flow)
            write_mask(folder / part / "occlusions" / name / f"frame_{frame:04d}.png", occluded)


def _write_chairs(folder: Path, recipe: Recipe, subset: int, index: int) -> None:
    scene = recipe.scene(subset, index)
    view = scene.view(1)
    stem = f"{index + 1:05d}"
    write_image(folder / "data" / f"{stem}_img1.ppm", view.image)
    write_image(folder / "data" / f"{stem}_img2.ppm", scene.view(2).image)
    write_flow(folder / "data" / f"{stem}_flow.flo", scene.flow(view, 2)[0])


def _finish_chairs(folder: Path, recipe: Recipe) -> None:
    """Write the split file: line n is 1 (training) or 2 (validation) for pair n; every fifth pair is held out."""
    lines = ["2" if index % 5 == 4 or index + 1 == recipe.scenes > 1 else "1" for index in range(recipe.scenes)]
    (folder / "FlyingChairs_train_val.txt").write_text("\n".join(lines) + "\n")


def _write_things(folder: Path, recipe: Recipe, subset: int, index: int) -> None:
    part, first = ("TRAIN", "TEST")[subset], 6
    sequence = Path(part, "ABC"[index % 3], f"{index // 3:04d}")
    last = first + recipe.frames - 1
    for side, scene in _stereo(recipe.scene(subset, index)).items():
        for frame in range(first, last + 1):
            view = scene.view(frame)
            write_image(folder / "frames_cleanpass" / sequence / side / f"{frame:04d}.png", view.image)
            write_image(folder / "frames_finalpass" / sequence / side / f"{frame:04d}.png", scene.finish(view))
            # The public set has flow beyond both ends of a sequence; byte orders alternate here, readers must cope.
            for direction, step in (("Future", 1), ("Past", -1)):
                name = f"OpticalFlowInto{direction}_{frame:04d}_{side[0].upper()}.pfm"
                path = folder / "optical_flow" / sequence / f"into_{direction.lower()}" / side / name
                flow, _ = scene.flow(view, frame + step)
                write_bytes(path, encode_pfm(flow, np.ones(scene.size), little_endian=frame % 2 == 0))


def _write_things_subset(folder: Path, recipe: Recipe, subset: int, index: int) -> None:
    part = folder / ("train", "val")[subset]
    for side, scene in _stereo(recipe.scene(subset, index)).items():
        for frame in range(recipe.frames):
            view, number = scene.view(frame), f"{index * recipe.frames + frame:07d}"
            write_image(part / "image_clean" / side / f"{number}.png", view.image)
            write_image(part / "image_final" / side / f"{number}.png", scene.finish(view))
            for direction, step in (("into_future", 1), ("into_past", -1)):
                if 0 <= frame + step < recipe.frames:
                    flow, occluded = scene.flow(view, frame + step)
                    write_flow(part / "flow" / side / direction / f"{number}.flo", flow)
                    write_mask(part / "flow_occlusions" / side / direction / f"{number}.png", occluded)


def _write_kitti(images: str, objects: bool, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
    scene = recipe.scene(subset, index, kitti_size(recipe.size, index))
    part, stem = folder / ("training", "testing")[subset], f"{index:06d}_10.png"
    view = scene.view(1)
    write_image(part / images / stem, view.image)
    write_image(part / images / f"{index:06d}_11.png", scene.view(2).image)
    if subset == 1:
        return
    flow, occluded = scene.flow(view, 2)
    valid = scan_lines(scene)
    write_flow(part / "flow_occ" / stem, flow, valid)
    write_flow(part / "flow_noc" / stem, flow, valid & ~occluded)
    if objects:
        write_image(part / "obj_map" / stem, view.layer.astype(np.uint8))


def _write_hd1k(folder: Path, recipe: Recipe, subset: int, index: int) -> None:
    scene = recipe.scene(subset, index)
    images = folder / ("hd1k_input", "hd1k_challenge")[subset] / "image_2"
    for frame in range(recipe.frames):
        view, stem = scene.view(frame), f"{index:06d}_{frame:04d}.png"
        write_image(images / stem, view.image)
        if subset == 0:
            flow, _ = scene.flow(view, frame + 1)
            write_flow(folder / "hd1k_flow_gt" / "flow_occ" / stem, flow, ~_hole(scene, frame))


def _write_spring(folder: Path, recipe: Recipe, subset: int, index: int) -> None:
    sequence = folder / ("train", "test")[subset] / f"{index + 1:04d}"
    height, width = recipe.size
    # Ground truth on the doubled grid: its pixel i lies at (i + 0.5) / 2 - 0.5 of the image; values are image pixels.
    py, px = np.meshgrid(np.arange(2 * height) / 2 - 0.25, np.arange(2 * width) / 2 - 0.25, indexing="ij")
    for side, scene in _stereo(recipe.scene(subset, index)).items():
        for frame in range(1, recipe.frames + 1):
            write_image(sequence / f"frame_{side}" / f"frame_{side}_{frame:04d}.png", scene.view(frame).image)
            if subset == 1:
                continue
            view = scene.view(frame, (px, py), colours=False)
            known = ~np.repeat(np.repeat(_hole(scene, frame), 2, 0), 2, 1)
            for direction, step in (("FW", 1), ("BW", -1)):
                if not 1 <= frame + step <= recipe.frames:
                    continue
                flow, occluded = scene.flow(view, frame + step)
                end = f"flow_{direction}_{side}"
                write_flow(sequence / end / f"{end}_{frame:04d}.flo5", flow, known)
                maps = sequence / "maps"
                write_mask(maps / f"matchmap_{end}" / f"matchmap_{end}_{frame:04d}.png", occluded)
                write_mask(maps / f"detailmap_{end}" / f"detailmap_{end}_{frame:04d}.png", thin_parts(view))
                rigid = f"rigidmap_{direction}_{side}"
                write_mask(maps / rigid / f"{rigid}_{frame:04d}.png", view.layer > 0)
            sky = f"skymap_{side}"
            write_mask(sequence / "maps" / sky / f"{sky}_{frame:04d}.png", view.layer == 0)


def _stereo(scene: Scene) -> dict[str, Scene]:
    """Return the scene seen from the left and the right camera: nearer layers move further to the left."""
    unit = scene.size[1] / 80
    moved = [
        dataclasses.replace(
            layer,
            motion=dataclasses.replace(
                layer.motion, centre=(layer.motion.centre[0] - unit * (1 + depth), layer.motion.centre[1])
            ),
        )
        for depth, layer in enumerate(scene.layers)
    ]
    return {"left": scene, "right": dataclasses.replace(scene, layers=tuple(moved))}


def kitti_size(size: tuple[int, int], index: int) -> tuple[int, int]:
    """Return the size of KITTI's pair ``index`` in the scale in which its usual 375×1242 is ``size``."""
    (height, width), (usual_height, usual_width) = KITTI_SIZES[index % len(KITTI_SIZES)], KITTI_SIZES[0]

    def scaled(length: int, usual: int, target: int) -> int:
        # At least one pixel of difference where there is any, so that sizes differ in small sets too.
        change = (length - usual) * target / usual
        return target + (int(np.sign(change)) * max(1, round(abs(change))) if change else 0)

    return scaled(height, usual_height, size[0]), scaled(width, usual_width, size[1])


def scan_lines(scene: Scene) -> np.ndarray:
    """Return a laser scanner's mask, H×W bool: nothing in the top 40 %, broken lines below, 20 to 30 % in all."""
    rng = np.random.default_rng([*scene.seed, 2])
    height, width = scene.size
    top = int(np.ceil(0.4 * height))
    share = rng.uniform(0.22, 0.28) * height / max(height - top, 1)
    valid = np.zeros((height, width), bool)
    lines = rng.random(height - top) < 2 / 3
    lines[rng.integers(len(lines))] = True
    valid[top:][lines] = rng.random((int(lines.sum()), width)) < share / lines.mean()
    return valid


def thin_parts(view: View) -> np.ndarray:
    """Return where something less than about 10 pixels wide is seen, H×W bool."""
    thick = np.zeros(view.layer.shape, bool)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    for layer in np.unique(view.layer):
        thick |= cv2.morphologyEx((view.layer == layer).astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0
    return ~thick


def _hole(scene: Scene, frame: int) -> np.ndarray:
    """Return an elliptic region, H×W bool, where the ground truth of a frame is left unknown."""
    rng = np.random.default_rng([*scene.seed, 3, frame])
    height, width = scene.size
    y, x = np.ogrid[:height, :width]
    cy, cx, ry, rx = rng.uniform(0.1, [0.9, 0.9, 0.2, 0.2]) * [height, width, height, width]
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1


WRITERS = {
    "sintel": LayoutWriter(_write_sintel),
    "chairs": LayoutWriter(_write_chairs, _finish_chairs, has_test=False),
    "things": LayoutWriter(_write_things),
    "things-subset": LayoutWriter(_write_things_subset),
    "kitti2015": LayoutWriter(functools.partial(_write_kitti, "image_2", True)),
    "kitti2012": LayoutWriter(functools.partial(_write_kitti, "colored_0", False)),
    "hd1k": LayoutWriter(_write_hd1k),
    "spring": LayoutWriter(_write_spring),
}
"""Writers by the name of the layout."""
