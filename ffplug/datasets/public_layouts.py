"""The layouts of the public data sets: how each is recognised, checked, and written from procedural scenes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from mmengine import fileio

from ffplug.datasets.formats import encode_pfm, write_bytes, write_flow, write_image, write_mask
from ffplug.datasets.layouts import Layout, Part, join, list_folder
from ffplug.datasets.procedural.scene import Scene, View
from ffplug.datasets.procedural.writers import Recipe
from ffplug.datasets.sintel import FRAMES, VALIDATION_SCENES
from ffplug.registry import LAYOUTS

SINTEL_TRAINING = [name for name in sorted(FRAMES) if name not in VALIDATION_SCENES]
for _place, _scene in enumerate(VALIDATION_SCENES):
    SINTEL_TRAINING.insert(3 * _place + 2, _scene)
"""Sintel's scene names in the order in which they are used, every third one of the validation split."""
SINTEL_TEST = ["ambush_1", "ambush_3", "bamboo_3", "cave_3", "market_1", "market_4", "mountain_2"]
KITTI_SIZES = ((375, 1242), (376, 1241), (374, 1238), (370, 1226), (370, 1224))
"""Height and width of KITTI 2015's frames; a procedural set has the same ones in its own scale."""


@LAYOUTS.register_module(name="sintel")
class SintelLayout(Layout):
    """MPI Sintel."""

    title = "MPI Sintel"
    datasets = ("ffplug.SintelDataset",)
    markers = ("training/clean", "training/final", "test/clean", "test/final")
    expected = "training/{clean,final,flow}/<scene>/ and test/{clean,final}/<scene>/"
    parts = (
        Part("training/clean", "ffplug.SintelDataset", dict(render="clean"), needed=True),
        Part("training/final", "ffplug.SintelDataset", dict(render="final"), needed=True),
        Part("test/clean", "ffplug.SintelDataset", dict(render="clean", split="test")),
        Part("test/final", "ffplug.SintelDataset", dict(render="final", split="test")),
    )

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Both passes, and in the training part flow, occlusion and invalid masks."""
        part, names = (("training", SINTEL_TRAINING), ("test", SINTEL_TEST))[subset]
        name = names[index] if index < len(names) else f"extra_{index + 1:03d}"
        scene = recipe.scene(subset, index)
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


@LAYOUTS.register_module(name="chairs")
class ChairsLayout(Layout):
    """FlyingChairs."""

    title = "FlyingChairs"
    datasets = ("ffplug.FlyingChairsDataset",)
    markers = ("data/00001_img1.ppm", "data/00001_flow.flo", "data/00001_img2.ppm")
    expected = "data/%05d_{img1.ppm,img2.ppm,flow.flo}"
    parts = (Part("data", "ffplug.FlyingChairsDataset", dict(split="all"), needed=True),)
    has_test = False

    def lies_in(self, root: str) -> bool:
        """Also where the numbers start at another pair than the first."""
        _, files = list_folder(join(root, "data"))
        return super().lies_in(root) or any(name.endswith(("_img1.ppm", "_flow.flo")) for name in files[:9])

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """One pair."""
        scene = recipe.scene(subset, index)
        view = scene.view(1)
        stem = f"{index + 1:05d}"
        write_image(folder / "data" / f"{stem}_img1.ppm", view.image)
        write_image(folder / "data" / f"{stem}_img2.ppm", scene.view(2).image)
        write_flow(folder / "data" / f"{stem}_flow.flo", scene.flow(view, 2)[0])

    def finish(self, folder: Path, recipe: Recipe) -> None:
        """Write the split file: line n is 1 (training) or 2 (validation) for pair n; every fifth pair is held out."""
        lines = ["2" if index % 5 == 4 or index + 1 == recipe.scenes > 1 else "1" for index in range(recipe.scenes)]
        (folder / "FlyingChairs_train_val.txt").write_text("\n".join(lines) + "\n")


@LAYOUTS.register_module(name="things")
class ThingsLayout(Layout):
    """FlyingThings3D."""

    title = "FlyingThings3D"
    datasets = ("ffplug.FlyingThings3DDataset",)
    markers = ("frames_cleanpass", "frames_finalpass")
    expected = "frames_{cleanpass,finalpass}/{TRAIN,TEST}/{A,B,C}/dddd/left/ and optical_flow/…"
    parts = tuple(
        Part(f"frames_{render}pass/{split.upper()}", "ffplug.FlyingThings3DDataset", dict(render=render, split=split))
        for render in ("clean", "final")
        for split in ("train", "test")
    )

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Both cameras and passes, flow in both directions of time."""
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


@LAYOUTS.register_module(name="things-subset")
class ThingsSubsetLayout(Layout):
    """The subset of FlyingThings3D."""

    title = "FlyingThings3D subset"
    datasets = ("ffplug.FlyingThings3DSubsetDataset",)
    markers = ("train/image_clean", "train/image_final", "val/image_clean", "val/image_final")
    expected = "{train,val}/{image_clean,image_final}/left/ and {train,val}/flow/left/{into_future,into_past}/"
    parts = tuple(
        Part(
            f"{split}/image_{render}/{camera}",
            "ffplug.FlyingThings3DSubsetDataset",
            dict(render=render, split=split, cameras=camera),
        )
        for split in ("train", "val")
        for render in ("clean", "final")
        for camera in ("left", "right")
    )

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Both cameras and passes, flow and occlusion in both directions of time."""
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


class _KITTILayout(Layout):
    """What both years of KITTI share."""

    images: ClassVar[str]
    objects: ClassVar[bool] = False

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """One pair in one of KITTI's sizes, sparse flow with and without occluded pixels."""
        scene = recipe.scene(subset, index, kitti_size(recipe.size, index))
        part, stem = folder / ("training", "testing")[subset], f"{index:06d}_10.png"
        view = scene.view(1)
        write_image(part / self.images / stem, view.image)
        write_image(part / self.images / f"{index:06d}_11.png", scene.view(2).image)
        if subset == 1:
            return
        flow, occluded = scene.flow(view, 2)
        valid = scan_lines(scene)
        write_flow(part / "flow_occ" / stem, flow, valid)
        write_flow(part / "flow_noc" / stem, flow, valid & ~occluded)
        if self.objects:
            write_image(part / "obj_map" / stem, view.layer.astype(np.uint8))


@LAYOUTS.register_module(name="kitti2015")
class KITTI2015Layout(_KITTILayout):
    """KITTI 2015."""

    title = "KITTI 2015"
    datasets = ("ffplug.KITTI2015Dataset",)
    markers = ("training/image_2", "testing/image_2")
    expected = "{training,testing}/image_2/ and training/flow_occ/"
    parts = (
        Part("training/image_2", "ffplug.KITTI2015Dataset", dict(split="train"), needed=True),
        Part("testing/image_2", "ffplug.KITTI2015Dataset", dict(split="test")),
    )
    images = "image_2"
    objects = True


@LAYOUTS.register_module(name="kitti2012")
class KITTI2012Layout(_KITTILayout):
    """KITTI 2012."""

    title = "KITTI 2012"
    datasets = ("ffplug.KITTI2012Dataset",)
    markers = ("training/colored_0", "testing/colored_0", "training/image_0", "testing/image_0")
    expected = "{training,testing}/colored_0/ (or image_0/) and training/flow_occ/"
    parts = (
        Part("training", "ffplug.KITTI2012Dataset", dict(split="train"), needed=True),
        Part("testing", "ffplug.KITTI2012Dataset", dict(split="test")),
    )
    images = "colored_0"


@LAYOUTS.register_module(name="hd1k")
class HD1KLayout(Layout):
    """HD1K."""

    title = "HD1K"
    datasets = ("ffplug.HD1KDataset",)
    markers = ("hd1k_input", "hd1k_flow_gt")
    expected = "hd1k_input/image_2/ and hd1k_flow_gt/flow_occ/"
    parts = (
        Part("hd1k_input/image_2", "ffplug.HD1KDataset", dict(split="train"), needed=True),
        Part("hd1k_challenge/image_2", "ffplug.HD1KDataset", dict(split="test")),
    )

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """The frames of a sequence, and in the training part flow with a hole."""
        scene = recipe.scene(subset, index)
        images = folder / ("hd1k_input", "hd1k_challenge")[subset] / "image_2"
        for frame in range(recipe.frames):
            view, stem = scene.view(frame), f"{index:06d}_{frame:04d}.png"
            write_image(images / stem, view.image)
            if subset == 0:
                flow, _ = scene.flow(view, frame + 1)
                write_flow(folder / "hd1k_flow_gt" / "flow_occ" / stem, flow, ~_hole(scene, frame))


@LAYOUTS.register_module(name="spring")
class SpringLayout(Layout):
    """Spring."""

    title = "Spring"
    datasets = ("ffplug.SpringDataset",)
    markers = ("train/0001/frame_left", "train/0001/flow_FW_left", "test/0003/frame_left", "train/0001/frame_right")
    expected = "{train,test}/%04d/frame_{left,right}/ and train/%04d/flow_{FW,BW}_{left,right}/"
    parts = (
        Part("train", "ffplug.SpringDataset", dict(split="train"), needed=True),
        Part("test", "ffplug.SpringDataset", dict(split="test")),
    )

    def lies_in(self, root: str) -> bool:
        """Also where the numbers start at another scene than the published ones."""
        if super().lies_in(root):
            return True
        scenes = ((split, list_folder(join(root, split))[0]) for split in ("train", "test"))
        return any(names and fileio.isdir(join(root, split, names[0], "frame_left")) for split, names in scenes)

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Both cameras; in the training part flow on the doubled grid, forward and backward, and the maps."""
        sequence = folder / ("train", "test")[subset] / f"{index + 1:04d}"
        height, width = recipe.size
        # Ground truth on the doubled grid: its pixel i lies at (i + 0.5) / 2 - 0.5 of the image, in image pixels.
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
