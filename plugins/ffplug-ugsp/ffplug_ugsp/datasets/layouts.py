"""The public sets' layouts: how each is recognised and checked, and procedural scenes in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from ffplug.datasets.formats import write_flow, write_image
from ffplug.datasets.layouts import Layout, Part, join, list_folder
from ffplug.datasets.procedural import Recipe, Scene
from ffplug_ugsp.datasets.benchmarks import LEVELS
from ffplug_ugsp.datasets.high_speed import STEP
from ffplug_ugsp.datasets.scenes import exact_triplet
from ffplug_ugsp.registry import LAYOUTS

MIDDLEBURY = ("Beanbags", "Dimetrodon", "DogDance", "Grove2", "Grove3", "Hydrangea", "MiniCooper", "RubberWhale",
              "Urban2", "Urban3", "Venus", "Walking")  # fmt: skip
XIPH = ("BoxingPractice", "Crosswalk", "DrivingPOV", "FoodMarket", "FoodMarket2", "RitualDance",
        "SquareAndTimelapse", "Tango")  # fmt: skip


def _name(names: tuple[str, ...], index: int) -> str:
    return names[index] if index < len(names) else f"Extra{index + 1}"


def _view(scene: Scene, time: float) -> np.ndarray:
    return scene.view(time).image


@LAYOUTS.register_module(name="vimeo-triplet")
class VimeoTripletLayout(Layout):
    """Vimeo90K's triplets; a procedural scene is one, with exact flow from the frame between to the others."""

    title = "Vimeo90K triplets"
    datasets = ("ffplug_ugsp.VimeoTripletDataset",)
    markers = ("tri_trainlist.txt", "tri_testlist.txt")
    expected = "sequences/<5 digits>/<4 digits>/im{1,2,3}.png, tri_trainlist.txt and tri_testlist.txt"
    parts = (
        Part("sequences", "ffplug_ugsp.VimeoTripletDataset", dict(split="all"), needed=True),
        Part("sequences", "ffplug_ugsp.VimeoTripletDataset", dict(split="test"), needed=True),
    )

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """One triplet."""
        name = f"{subset + 1:05d}/{index + 1:04d}"
        made = exact_triplet(recipe.scene(subset, index), 0.5)
        for number, key in enumerate(("frame0", "target", "frame1"), 1):
            write_image(folder / "sequences" / name / f"im{number}.png", made[key])
        for key in ("flow_t0", "flow_t1"):
            write_flow(folder / "flow" / name / f"{key}.flo", made[key])

    def finish(self, folder: Path, recipe: Recipe) -> None:
        """Write both lists; the test list ends with an empty line, as the published one does."""
        _write_lists(folder, "tri", recipe)


@LAYOUTS.register_module(name="vimeo-septuplet")
class VimeoSeptupletLayout(Layout):
    """Vimeo90K's septuplets; a procedural scene is one."""

    title = "Vimeo90K septuplets"
    datasets = ("ffplug_ugsp.VimeoSeptupletDataset",)
    markers = ("sep_trainlist.txt", "sep_testlist.txt")
    expected = "sequences/<5 digits>/<4 digits>/im{1..7}.png, sep_trainlist.txt and sep_testlist.txt"
    parts = (
        Part("sequences", "ffplug_ugsp.VimeoSeptupletDataset", dict(split="all"), needed=True),
        Part("sequences", "ffplug_ugsp.VimeoSeptupletDataset", dict(split="test"), needed=True),
    )

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Seven frames, a third of a frame's time apart."""
        scene = recipe.scene(subset, index)
        for frame in range(7):
            write_image(
                folder / "sequences" / f"{subset + 1:05d}/{index + 1:04d}" / f"im{frame + 1}.png",
                _view(scene, frame / 3),
            )

    def finish(self, folder: Path, recipe: Recipe) -> None:
        """Write both lists."""
        _write_lists(folder, "sep", recipe)


def _write_lists(folder: Path, prefix: str, recipe: Recipe) -> None:
    for subset, (name, count) in enumerate((("train", recipe.scenes), ("test", recipe.test_scenes))):
        lines = [f"{subset + 1:05d}/{index + 1:04d}\n" for index in range(count)]
        (folder / f"{prefix}_{name}list.txt").write_text("".join(lines) + "\n" * subset)


@LAYOUTS.register_module(name="ucf101-dvf")
class UCF101Layout(Layout):
    """UCF101 as Deep Voxel Flow cut it; a procedural scene is one triplet."""

    title = "UCF101 (DVF)"
    datasets = ("ffplug_ugsp.UCF101Dataset",)
    markers = ("1/frame_01_gt.png", "ucf101_interp_ours/1/frame_01_gt.png", "ucf101_interp/1/frame_01_gt.png")
    expected = "<number>/frame_00.png, frame_01_gt.png and frame_02.png"
    parts = (Part("", "ffplug_ugsp.UCF101Dataset", needed=True),)
    has_test = False

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """One triplet; folders are numbered in steps of ten, as the published ones."""
        made = exact_triplet(recipe.scene(subset, index), 0.5)
        for key, name in (("frame0", "frame_00"), ("target", "frame_01_gt"), ("frame1", "frame_02")):
            write_image(folder / str(10 * index + 1) / f"{name}.png", made[key])


@LAYOUTS.register_module(name="middlebury-interp")
class MiddleburyInterpolationLayout(Layout):
    """Middlebury's OTHER sequences with a frame between; a procedural scene is one."""

    title = "Middlebury OTHER"
    datasets = ("ffplug_ugsp.MiddleburyInterpolationDataset",)
    markers = ("other-gt-interp",)
    expected = "other-data/<name>/frame{10,11}.png and other-gt-interp/<name>/frame10i11.png"
    parts = (Part("other-gt-interp", "ffplug_ugsp.MiddleburyInterpolationDataset", needed=True),)
    has_test = False

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """One triplet."""
        name = _name(MIDDLEBURY, index)
        made = exact_triplet(recipe.scene(subset, index), 0.5)
        write_image(folder / "other-data" / name / "frame10.png", made["frame0"])
        write_image(folder / "other-data" / name / "frame11.png", made["frame1"])
        write_image(folder / "other-gt-interp" / name / "frame10i11.png", made["target"])


@LAYOUTS.register_module(name="snu-film")
class SNUFILMLayout(Layout):
    """SNU-FILM; a procedural scene is a sequence with one triplet of each level."""

    title = "SNU-FILM"
    datasets = ("ffplug_ugsp.SNUFILMDataset",)
    markers = ("test-easy.txt", "test-extreme.txt")
    expected = "test-{easy,medium,hard,extreme}.txt and the frames that they list"
    parts = (Part("", "ffplug_ugsp.SNUFILMDataset", needed=True),)
    has_test = False

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Frames whose times are 0, 2, 4, 8 and 16 sixteenths of two away from the middle."""
        scene = recipe.scene(subset, index)
        for frame in sorted({8, *(8 + sign * 2**power for power in range(4) for sign in (-1, 1))}):
            name = f"{frame:06d}.png"
            write_image(folder / "test" / "GOPRO_test" / f"scene{index + 1:02d}" / name, _view(scene, frame / 8))

    def finish(self, folder: Path, recipe: Recipe) -> None:
        """Write the four lists; their paths begin above the set, as the published ones do."""
        for power, level in enumerate(LEVELS):
            lines = []
            for index in range(recipe.scenes):
                stem = f"data/SNU-FILM/test/GOPRO_test/scene{index + 1:02d}"
                lines.append(" ".join(f"{stem}/{8 + way * 2**power:06d}.png" for way in (-1, 0, 1)))
            (folder / f"test-{level}.txt").write_text("\n".join(lines) + "\n")


@LAYOUTS.register_module(name="xiph")
class XiphLayout(Layout):
    """The clips of Xiph; a procedural scene is one clip, of 1 + 2·(frames // 2) frames."""

    title = "Xiph"
    datasets = ("ffplug_ugsp.XiphDataset",)
    markers = tuple(f"{name}/001.png" for name in XIPH)
    expected = "<clip>/001.png to 100.png"
    parts = (Part("", "ffplug_ugsp.XiphDataset", needed=True),)
    has_test = False

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """One clip."""
        scene = recipe.scene(subset, index)
        for frame in range(1, 2 + 2 * (recipe.frames // 2)):
            write_image(folder / _name(XIPH, index) / f"{frame:03d}.png", _view(scene, frame / 2))


@LAYOUTS.register_module(name="x4k1000fps")
class X4KLayout(Layout):
    """X4K1000FPS; a procedural scene is one clip, for training or for the test."""

    title = "X4K1000FPS"
    datasets = ("ffplug_ugsp.X4KDataset",)
    markers = ("test/Type1", "test/Type2", "test/Type3")
    expected = "test/Type{1,2,3}/<clip>/0000.png to 0032.png"
    parts = (
        Part("test", "ffplug_ugsp.X4KDataset", dict(split="test"), needed=True),
        Part("train", "ffplug_ugsp.X4KDataset", dict(split="train")),
    )

    def lies_in(self, root: str) -> bool:
        """Also where there is only the part for training."""
        training = list_folder(join(root, "train"))[0][:1]
        clips = [name for scene in training for name in list_folder(join(root, "train", scene))[0][:4]]
        return super().lies_in(root) or any(name.startswith("occ") for name in clips)

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """The frames that are read: nine of a clip, four or eight apart."""
        scene = recipe.scene(subset, index)
        clip = (
            Path("test", f"Type{index % 3 + 1}", f"TEST{index + 1:02d}")
            if subset
            else Path("train", f"{index + 1:03d}", "occ008.320")
        )
        for place in range(9):
            write_image(folder / clip / f"{(4 if subset else 8) * place:04d}.png", _view(scene, place / 8))


class HighSpeedLayout(Layout):
    """Videos of 240 frames a second; a procedural scene is one, of one window of nine frames or more."""

    expected = "{train,test}/<video>/<number>.png, nine frames or more of each video"
    markers = ()
    named: ClassVar[str]
    """Regular expression of the videos' names."""

    def lies_in(self, root: str) -> bool:
        """Where videos are named as the published ones."""
        videos = [name for split in ("train", "test") for name in list_folder(join(root, split))[0]]
        return any(re.fullmatch(self.named, name) for name in videos)

    def video(self, index: int) -> str:
        """A video's name."""
        raise NotImplementedError

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """One video, an eighth of a frame's time apart."""
        scene = recipe.scene(subset, index)
        for frame in range(1 + STEP * max(1, recipe.frames // STEP)):
            name = folder / ("train", "test")[subset] / self.video(index) / f"{frame + 1:06d}.png"
            write_image(name, _view(scene, frame / STEP))


@LAYOUTS.register_module(name="gopro")
class GoProLayout(HighSpeedLayout):
    """GoPro's videos of 240 frames a second."""

    title = "GoPro"
    datasets = ("ffplug_ugsp.GoProDataset",)
    parts = (
        Part("test", "ffplug_ugsp.GoProDataset", dict(split="test"), needed=True),
        Part("train", "ffplug_ugsp.GoProDataset", dict(split="train")),
    )
    named = r"GOPR\d{4}_\d\d_\d\d"

    def video(self, index: int) -> str:
        """A video's name."""
        return f"GOPR{index + 1:04d}_11_00"


@LAYOUTS.register_module(name="adobe240")
class Adobe240Layout(HighSpeedLayout):
    """Adobe240's videos, their frames taken out."""

    title = "Adobe240"
    datasets = ("ffplug_ugsp.Adobe240Dataset",)
    parts = (
        Part("test", "ffplug_ugsp.Adobe240Dataset", dict(split="test"), needed=True),
        Part("train", "ffplug_ugsp.Adobe240Dataset", dict(split="train")),
    )
    named = r"IMG_\d{4}|720p_240fps_\d+|GOPR\d{4}"

    def video(self, index: int) -> str:
        """A video's name."""
        return f"IMG_{index + 1:04d}"
