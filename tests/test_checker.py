"""``ffplug data check`` on whole, damaged, incomplete and foreign folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import warm

from ffplug.datasets import write_flow, write_image
from ffplug.datasets.checker import check_dataset
from ffplug.datasets.layouts import layout_names
from ffplug.datasets.procedural.writers import Recipe, write_procedural
from ffplug.errors import DataError

LAYOUTS = layout_names()


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checked")
    for layout in LAYOUTS:
        write_procedural(Recipe(layout, scenes=2, frames=3, size=(48, 64), difficulty="demo"), root / layout)
    return root


@pytest.fixture
def tree(trees: Path, tmp_path: Path):
    def copy(layout: str) -> Path:
        return Path(shutil.copytree(trees / layout, tmp_path / layout))

    return copy


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [warm.python(), "-m", "ffplug.cli", "data", "check", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        check=False,
    )


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_whole_sets_have_no_problems(trees: Path, layout: str, full: bool) -> None:
    seen = []
    report = check_dataset(str(trees / layout), full=full, progress=lambda done, total: seen.append((done, total)))
    assert report.ok and report.layout == layout and report.procedural
    assert report.files == len(seen) == seen[-1][1] and sum(report.pairs.values()) > 0


DAMAGE = [
    ("sintel", "training/clean/alley_1/frame_0002.png", "cut", "truncated"),
    ("sintel", "training/flow/alley_1/frame_0001.flo", "cut", "truncated"),
    ("sintel", "training/flow/alley_1/frame_0001.flo", "gone", "this flow is missing"),
    ("sintel", "training/clean/alley_1/frame_0002.png", "gone", "this frame is missing"),
    ("sintel", "training/occlusions/alley_1/frame_0001.png", "empty", "0 bytes"),
    ("sintel", "training/final", "gone", "this folder is missing"),
    ("sintel", "training/flow/alley_2/frame_0001.flo", "junk", "magic"),
    ("chairs", "data/00001_img1.ppm", "cut", "truncated"),
    ("chairs", "data/00002_flow.flo", "gone", "missing"),
    ("things", "optical_flow/TRAIN/A/0000/into_past/left/OpticalFlowIntoPast_0007_L.pfm", "cut", "truncated"),
    ("things", "frames_finalpass/TRAIN/B/0000/left/0008.png", "cut", "truncated"),
    ("things-subset", "train/flow/left/into_future/0000000.flo", "cut", "truncated"),
    ("kitti2015", "training/flow_occ/000001_10.png", "cut", "truncated"),
    ("kitti2015", "training/image_2/000001_11.png", "junk", "expected a PNG"),
    ("kitti2012", "testing/colored_0/000000_11.png", "gone", "missing"),
    ("hd1k", "hd1k_flow_gt/flow_occ/000000_0001.png", "empty", "0 bytes"),
    ("spring", "train/0001/flow_FW_left/flow_FW_left_0001.flo5", "cut", "HDF5"),
    ("spring", "train/0002/flow_FW_left", "gone", "this flow is missing"),
]


@pytest.mark.parametrize(("layout", "name", "damage", "said"), DAMAGE)
def test_the_quick_check_names_what_is_damaged(tree, layout: str, name: str, damage: str, said: str) -> None:
    root = tree(layout)
    path = root / name
    if damage == "gone":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes({"cut": data[:-9], "empty": b"", "junk": b"\0" * 300}[damage])
    report = check_dataset(str(root), layout=layout)
    assert not report.ok
    hits = [problem for problem in report.problems if name in problem.path and said in problem.message]
    assert hits, report.problems
    others = [problem for problem in report.problems if name not in problem.path]
    assert not others, "a single fault was reported as several"


def test_only_the_full_check_finds_a_flipped_byte(tree) -> None:
    root = tree("sintel")
    path = root / "training/final/alley_1/frame_0002.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)
    assert check_dataset(str(root)).ok
    (problem,) = check_dataset(str(root), full=True).problems
    assert problem.path == str(path) and problem.sequence == "alley_1"


def test_sizes_are_compared(tree) -> None:
    root = tree("sintel")
    write_image(root / "training/clean/alley_1/frame_0003.png", np.zeros((40, 64, 3), np.uint8))
    write_flow(root / "training/flow/alley_2/frame_0002.flo", np.zeros((9, 7, 2)))
    said = {Path(problem.path).name: problem.message for problem in check_dataset(str(root)).problems}
    assert said["frame_0003.png"] == "expected 64×48 (W×H) as frame_0002.png, found 64×40"
    assert said["frame_0002.flo"] == "expected 64×48 (W×H) as frame_0002.png, found 7×9"


def test_flow_without_a_valid_pixel_is_a_problem_of_the_full_check(tree) -> None:
    root = tree("kitti2015")
    write_flow(root / "training/flow_occ/000000_10.png", np.zeros((48, 64, 2)), np.zeros((48, 64)))
    assert "no pixel" in check_dataset(str(root), full=True).problems[0].message


def test_a_real_sets_missing_scenes_are_named(tree) -> None:
    root = tree("sintel")
    (root / "PROCEDURAL.json").unlink()
    said = [f"{Path(problem.path).name}: {problem.message}" for problem in check_dataset(str(root)).problems]
    assert "alley_1: expected 50 frames, found 3" in said
    assert "ambush_2: expected 21 frames, found none" in said


def test_parts_that_need_not_be_there_are_notes(tree) -> None:
    root = tree("things")
    shutil.rmtree(root / "frames_finalpass")
    report = check_dataset(str(root))
    assert report.ok and "frames_finalpass/TRAIN: not there" in report.notes


def test_wrong_roots(trees: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        check_dataset(str(tmp_path / "none"))
    with pytest.raises(DataError, match="the folder is empty"):
        check_dataset(str(tmp_path))
    with pytest.raises(DataError, match=r"lies in .*: check that"):
        check_dataset(str(trees))
    with pytest.raises(DataError, match=r"expected MPI Sintel, found KITTI 2015.*KITTI2015Dataset"):
        check_dataset(str(trees / "kitti2015"), layout="sintel")
    with pytest.raises(DataError, match="did you mean 'sintel'"):
        check_dataset(str(trees / "sintel"), layout="sintl")


def test_a_folder_of_frames(tmp_path: Path) -> None:
    for index in range(3):
        write_image(tmp_path / f"{index}.png", np.zeros((5, 6, 3), np.uint8))
    assert check_dataset(str(tmp_path)).ok
    write_image(tmp_path / "1.png", np.zeros((5, 7, 3), np.uint8))
    assert len(check_dataset(str(tmp_path)).problems) == 2


def test_the_command(tree) -> None:
    root = tree("sintel")
    good = command(str(root), "--full")
    assert good.returncode == 0 and "nothing is wrong" in good.stdout and "procedural, not MPI Sintel" in good.stdout
    path = root / "training/flow/alley_1/frame_0001.flo"
    path.write_bytes(path.read_bytes()[:-9])
    bad = command(str(root), "--json", "-")
    assert bad.returncode == 2
    report = json.loads(bad.stdout)
    assert report["problems"][0]["path"] == str(path) and not report["ok"]
    assert bad.stderr.strip() == f"error: {root}: 1 problem(s) in MPI Sintel"
    assert command(str(root / "nothing")).returncode == 2


def test_layouts_of_a_broken_plugin_are_passed_over_and_told(trees: Path, tmp_path: Path) -> None:
    package = tmp_path / "ffplug_crooked"
    package.mkdir()
    (package / "__init__.py").touch()
    manifest = '[plugin]\nname = "ffplug-crooked"\npackage = "ffplug_crooked"\napi = ">=1"\n'
    (package / "ffplug.toml").write_text(f'{manifest}[components]\nlayouts = ["crooked"]\n')
    (package / "registry.py").write_text("import no_such_module\n")
    shutil.copytree(trees / "sintel/training/clean/alley_1", tmp_path / "frames")
    done = command(str(tmp_path / "frames"), FFPLUG_PLUGINS=str(tmp_path))
    assert done.returncode == 0 and "folder of frames" in done.stdout
    assert "layout crooked is passed over: its plugin fails to import" in done.stdout + done.stderr
    (package / "registry.py").write_text(
        "from ffplug.registry import LAYOUTS as ROOT, Registry\n"
        'LAYOUTS = Registry("layout", parent=ROOT, scope="ffplug_crooked")\n'
    )
    done = command(str(tmp_path / "frames"), "--layout", "crooked", FFPLUG_PLUGINS=str(tmp_path))
    assert done.returncode == 2 and "the manifest of ffplug_crooked lists the layout crooked" in done.stderr
