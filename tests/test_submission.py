"""Submission archives: layout, types, completeness, and what the checker says about faulty ones."""

from __future__ import annotations

import os
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from warm import python

from ffplug import build_model
from ffplug.datasets import SintelDataset, read_flow, write_image
from ffplug.datasets.formats import encode_flo, encode_kitti
from ffplug.datasets.procedural.writers import Recipe, write_procedural
from ffplug.datasets.submission import (
    SPRING_FRAMES,
    SUBMISSIONS,
    FlowSubmission,
    KITTI2012Submission,
    KITTI2015Submission,
    SintelSubmission,
    SpringSubmission,
    check_submission,
    write_submission,
)
from ffplug.errors import ConfigError, DataError
from ffplug.structures import FlowDataSample


def sample(shape: tuple[int, int] = (6, 8), **meta: Any) -> FlowDataSample:
    defaults = dict(
        ori_shape=shape, dataset="Sintel/clean", sequence="wall", frame=1, sample_id="0003/flow_FW_left/0001"
    )
    return FlowDataSample(metainfo={**defaults, **meta})


def flow(shape: tuple[int, int] = (6, 8), seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).uniform(-20, 20, (2, *shape)).astype(np.float32)


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("benchmarks")
    for layout in SUBMISSIONS:
        write_procedural(Recipe(layout, scenes=1, frames=4, size=(64, 96), difficulty="demo"), root / layout)
    return root


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [python(), "-m", "ffplug.cli", "submit", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("cls", "name", "member"),
    [
        (SintelSubmission, "out.zip", "clean/wall/frame0001.flo"),
        (KITTI2012Submission, "out.zip", "flow/wall_10.png"),
        (KITTI2015Submission, "out.zip", "flow/wall_10.png"),
        (SpringSubmission, "out.zip", "0003/flow_FW_left/flow_FW_left_0001.flo5"),
        (SpringSubmission, "out", "0003/flow_FW_left/flow_FW_left_0001.flo5"),
    ],
)
def test_members_and_values(tmp_path: Path, cls: type[FlowSubmission], name: str, member: str) -> None:
    field = flow()
    with cls(tmp_path / name, partial=True) as submission:
        submission.add(sample(), field)
        assert not (tmp_path / name).exists()
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name) as archive:
            assert archive.namelist() == [member]
            archive.extractall(tmp_path / "unpacked")
        path = tmp_path / "unpacked" / member
    else:
        path = tmp_path / name / member
    found, valid = read_flow(path)
    assert valid.all()
    np.testing.assert_allclose(found, field.transpose(1, 2, 0), atol=1 / 128 if "KITTI" in cls.title else 0)
    assert [p for p in os.listdir(tmp_path) if p.startswith(".")] == []


def test_kitti_files_are_16_bit_with_every_pixel_valid(tmp_path: Path) -> None:
    with KITTI2015Submission(tmp_path / "out.zip", partial=True) as submission:
        submission.add(sample(), flow())
    data = zipfile.ZipFile(tmp_path / "out.zip").read("flow/wall_10.png")
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert array.dtype == np.uint16 and (array[..., 0] == 1).all()


def test_a_whole_kitti_2012_archive_is_sound(tmp_path: Path) -> None:
    shape = (370, 1226)
    field = np.full((2, *shape), 3.5, np.float32)
    with KITTI2012Submission(tmp_path / "out.zip") as submission:
        for number in range(195):
            submission.add(sample(shape, sequence=f"{number:06d}"), field)
    assert check_submission(tmp_path / "out.zip") == ("kitti2012", [])
    said = check_submission(tmp_path / "out.zip", "kitti2015")[1]
    assert [problem.message for problem in said] == [
        "expected 200 files, 5 are missing, the first is flow/000195_10.png"
    ]


def test_incomplete_archives_are_not_written(tmp_path: Path) -> None:
    shape = (370, 1226)
    with (
        pytest.raises(DataError, match=r"expected 195 files, 194 are missing"),
        KITTI2012Submission(tmp_path / "out.zip") as submission,
    ):
        submission.add(sample(shape, sequence="000000"), np.zeros((2, *shape)))
    with pytest.raises(DataError, match="nothing was added"), SintelSubmission(tmp_path / "out.zip"):
        pass
    assert os.listdir(tmp_path) == []


def test_an_error_keeps_the_old_archive(tmp_path: Path) -> None:
    (tmp_path / "out.zip").write_bytes(b"old")
    with pytest.raises(RuntimeError), SintelSubmission(tmp_path / "out.zip", partial=True) as submission:
        submission.add(sample(), flow())
        raise RuntimeError("out of memory")
    assert (tmp_path / "out.zip").read_bytes() == b"old" and os.listdir(tmp_path) == ["out.zip"]


@pytest.mark.parametrize(
    ("field", "partial", "said"),
    [
        (flow((8, 6)), True, r"expected flow of \(6, 8, 2\)"),
        (np.full((2, 6, 8), np.nan), True, "96 values that are not finite"),
        (flow(), False, "expected 1024×436"),
    ],
)
def test_wrong_fields_are_refused(tmp_path: Path, field: np.ndarray, partial: bool, said: str) -> None:
    with pytest.raises(DataError, match=said), SintelSubmission(tmp_path / "out.zip", partial) as submission:
        submission.add(sample(), field)


def test_repeated_pairs_and_values_beyond_the_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="added twice"), SintelSubmission(tmp_path / "a.zip", True) as submission:
        submission.add(sample(), flow())
        submission.add(sample(), flow())
    with (
        pytest.raises(DataError, match="beyond what the format holds"),
        KITTI2015Submission(tmp_path / "b.zip", True) as s,
    ):
        s.add(sample(), np.full((2, 6, 8), 700))


def test_suffixes_and_targets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in \.zip"):
        KITTI2015Submission(tmp_path / "out.tar")
    with pytest.raises(DataError, match="give --bundler"):
        SintelSubmission(tmp_path / "out.lzma")
    with pytest.raises(DataError, match="no such program"):
        SintelSubmission(tmp_path / "out.lzma", bundler=tmp_path / "none")
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    with pytest.raises(DataError, match="exists already"):
        SpringSubmission(tmp_path / "there")
    with pytest.raises(ConfigError, match="did you mean 'sintel'"):
        check_submission(_zip(tmp_path / "x.zip", {"clean/a/frame0001.flo": b""}), "sintle")


def _program(path: Path, text: str) -> Path:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_bundler_gets_both_folders(tmp_path: Path) -> None:
    bundler = _program(tmp_path / "bundler", 'ls "$1"/wall "$2"/wall > "$3"\n')
    with SintelSubmission(tmp_path / "out.lzma", True, bundler) as submission:
        submission.add(sample(), flow())
        submission.add(sample(dataset="Sintel/final", frame=2), flow())
    text = (tmp_path / "out.lzma").read_text()
    assert "clean/wall:\nframe0001.flo" in text and "final/wall:\nframe0002.flo" in text
    assert sorted(os.listdir(tmp_path)) == ["bundler", "out.lzma"]
    failing = _program(tmp_path / "failing", "echo broken pipe >&2\nexit 3\n")
    with (
        pytest.raises(DataError, match="exit code 3: broken pipe"),
        SintelSubmission(tmp_path / "b.lzma", True, failing) as s,
    ):
        s.add(sample(), flow())
    assert sorted(os.listdir(tmp_path)) == ["bundler", "failing", "out.lzma"]


def test_complete_lists_of_files() -> None:
    scenes = {f"scene_{i}": 46 for i in range(12)}
    members = {
        f"{r}/{s}/frame{i:04d}.flo" for r in ("clean", "final") for s, n in scenes.items() for i in range(1, n + 1)
    }
    assert SintelSubmission.count_problems(members) == []
    lacking = members - {"final/scene_3/frame0007.flo"}
    assert SintelSubmission.count_problems(lacking) == [
        "final: expected 552 files, found 551",
        "final/scene_3: frames must be numbered from 0001 without a gap",
    ]
    assert "unexpected file readme.txt" in SintelSubmission.count_problems(members | {"readme.txt"})
    assert sum(SPRING_FRAMES.values()) == 1000
    spring = {
        f"{scene}/flow_{way}_{side}/flow_{way}_{side}_{i + (way == 'BW'):04d}.flo5"
        for scene, n in SPRING_FRAMES.items()
        for way in ("FW", "BW")
        for side in ("left", "right")
        for i in range(1, n)
    }
    assert len(spring) == 3960 and SpringSubmission.count_problems(spring) == []
    assert KITTI2015Submission.count_problems({f"flow/{i:06d}_10.png" for i in range(200)}) == []


def _zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


ONES = np.ones((6, 8), np.float32)
FIELD = flow().transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"flow/000000_10.png": encode_kitti(FIELD, ONES * 0)}, "48 pixels are invalid"),
        ({"flow/000000_10.png": cv2.imencode(".png", np.zeros((6, 8, 3), np.uint8))[1].tobytes()}, "16 bits"),
        ({"clean/a/frame0001.flo": encode_flo(FIELD, ONES)[:-4]}, "truncated"),
        ({"clean/a/frame0001.flo": encode_flo(FIELD * 50, ONES)}, "can't be right"),
        ({"clean/a/frame0001.flo": encode_flo(np.where(FIELD > 10, np.nan, FIELD), ONES)}, "not finite"),
    ],
)
def test_the_checker_names_faulty_files(tmp_path: Path, members: dict[str, bytes], said: str) -> None:
    _, problems = check_submission(_zip(tmp_path / "a.zip", members), partial=True)
    assert [problem.path for problem in problems] == list(members) and said in problems[0].message
    _, strict = check_submission(tmp_path / "a.zip")
    assert len(strict) > len(problems)


def test_the_checker_compares_sizes_with_the_frames(tmp_path: Path, trees: Path) -> None:
    archive = _zip(tmp_path / "a.zip", {"flow/000000_10.png": encode_kitti(FIELD / 10, ONES)})
    _, problems = check_submission(archive, data_root=str(trees / "kitti2015"), partial=True)
    assert problems[0].message.startswith("expected 96×64 (W×H) as")
    write_image(tmp_path / "testing/image_2/000000_10.png", np.zeros((6, 8, 3), np.uint8))
    assert check_submission(archive, data_root=str(tmp_path), partial=True)[1] == []


def test_what_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        check_submission(tmp_path / "none.zip")
    (tmp_path / "a.zip").write_bytes(b"PK\3\4 broken")
    with pytest.raises(DataError, match="expected a zip archive"):
        check_submission(tmp_path / "a.zip")
    (tmp_path / "a.lzma").write_bytes(b"x")
    with pytest.raises(DataError, match="only the benchmark's server"):
        check_submission(tmp_path / "a.lzma")
    with pytest.raises(DataError, match=r"not a submission of .*it holds notes\.txt"):
        check_submission(_zip(tmp_path / "b.zip", {"notes.txt": b""}))


def test_predictions_and_warm_start(trees: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("raft_small")
    root, archives = str(trees / "sintel"), {}
    for warm in (False, True):
        path = tmp_path / f"{warm}.zip"
        steps = []
        count = write_submission(
            model,
            SintelSubmission(path, True),
            root,
            2,
            warm,
            workers=0,
            progress=lambda *step, seen=steps: seen.append(step),
        )
        assert count == 6 and steps[-1] == (6, 6)
        with zipfile.ZipFile(path) as archive:
            archives[warm] = {name: archive.read(name) for name in archive.namelist()}
        assert check_submission(path, partial=True) == ("sintel", [])
    first = "clean/ambush_1/frame0001.flo"
    inputs = SintelDataset(root, split="test")[0]["inputs"].float()
    expected = model.predict_flow(inputs[:1], inputs[1:], iterations=2)["flow"][0].permute(1, 2, 0).numpy()
    assert archives[False][first] == archives[True][first] == encode_flo(expected, np.ones((64, 96)))
    assert archives[False][first.replace("0001", "0002")] != archives[True][first.replace("0001", "0002")]
    assert archives[False]["final/ambush_1/frame0001.flo"] == archives[True]["final/ambush_1/frame0001.flo"]


@pytest.mark.parametrize("benchmark", ["kitti2015", "spring"])
def test_the_command(trees: Path, tmp_path: Path, benchmark: str) -> None:
    out = tmp_path / ("out" if benchmark == "spring" else "out.zip")
    arguments = [
        "-c",
        "raft_small",
        "--root",
        str(trees / benchmark),
        "--out",
        str(out),
        "--iterations",
        "1",
        "--device",
        "cpu",
    ]
    done = command(benchmark, *arguments, "--partial", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert check_submission(out, partial=True) == (benchmark, [])
    refused = command("check", str(out), "--benchmark", benchmark)
    assert refused.returncode == 2 and refused.stderr.startswith("error: ") and "problem(s)" in refused.stderr


def test_the_command_refuses_a_stand_in_without_partial(trees: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zip"
    arguments = [
        "-c",
        "raft_small",
        "--root",
        str(trees / "sintel"),
        "--out",
        str(out),
        "--iterations",
        "1",
        "--device",
        "cpu",
    ]
    done = command("sintel", *arguments)
    assert done.returncode == 2 and "expected 1024×436" in done.stderr
    assert command("sintel", *arguments[:3], str(tmp_path / "none"), *arguments[4:]).returncode == 2
    assert os.listdir(tmp_path) == []
