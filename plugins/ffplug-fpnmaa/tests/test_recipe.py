"""Teachers, their labels and the student as one recipe, and what is done with the student, through the command line."""

import csv
import json

import numpy as np
import pytest
from ffplug_fpnmaa.datasets.annotations import read_annotations
from ffplug_fpnmaa.datasets.layouts import AffWild2Layout
from ffplug_fpnmaa.labels import EXPRESSIONS
from ffplug_fpnmaa.submission import write_submission
from ffplug_fpnmaa.tracking import FoundFace, ListedFaces, head_pose
from ffplug_fpnmaa.video import AffectTable

from ffplug.apis.video import VideoFrames, VideoWriter
from ffplug.cli import cli, run
from ffplug.datasets import read_image
from ffplug.errors import DataError

pytest.importorskip("mmpretrain", reason="the backbones need onedl-mmpretrain")

SMALL = (
    "model.backbone.stem_channels=4",
    "model.backbone.base_channels=4",
    "model.neck.in_channels=[4,8,16,32]",
    "train_cfg.max_iters=2",
    "train_cfg.val_interval=2",
    "train_dataloader.batch_size=8",
    "default_hooks.checkpoint.interval=1",
    "default_hooks.logger.interval=1",
)
FACES = ("prepare_data.0.scenes=2", "prepare_data.0.frames=14", "prepare_data.0.size=(32,32)")
TEACHERS = dict(option.split("=", 1) for option in SMALL)


def command(*arguments, status=0):
    assert run(cli, [str(argument) for argument in arguments], "ffplug") == status


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the recipe was run."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command("train", "fpn_maa_procedural", "--cfg-options", *SMALL, *FACES, options())
    return folder


def options():
    values = {key: json.loads(value) for key, value in TEACHERS.items()} | {"train_cfg.val_interval": 9}
    return f"prepare_data.1.cfg_options={values!r}"


def test_teachers_label_and_the_student_learns(folder):
    labels = folder / "work_dirs" / "fpn_maa_procedural_teachers"
    for task, width in (("va", 2), ("expr", 7), ("au", 12)):
        rows = list(csv.reader((labels / f"{task}.csv").open()))
        assert len(rows[0]) == 1 + width and (labels / task / "weights.safetensors").is_file()
        pictures = list((folder / "data/faces-procedural/cropped_aligned").glob("train*/*.jpg"))
        assert len(rows) - 1 == len(pictures)
    log = next((folder / "work_dirs" / "fpn_maa_procedural").glob("*/*.log")).read_text()
    for name in ("loss_va", "loss_ccc", "loss_expr", "loss_au", "loss_teacher_au", "affect/score", "affect/VA_samples"):
        assert f"{name}: " in log, name
    assert (folder / "work_dirs" / "fpn_maa_procedural" / "weights.safetensors").is_file()
    assert not (folder / "data" / "faces").exists() and "procedural, not Aff-Wild2/train: 38 frames" in log


def test_what_is_done_is_not_done_again(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    labels = folder / "work_dirs" / "fpn_maa_procedural_teachers"
    before = {path: path.stat().st_mtime_ns for path in labels.rglob("*.csv")}
    (labels / "au.csv").unlink()  # as if the run had been cut before the last labels were whole
    command("train", "fpn_maa_procedural", "--resume", "--cfg-options", *SMALL, *FACES, options())
    after = {path: path.stat().st_mtime_ns for path in labels.rglob("*.csv")}
    assert [path.name for path in before if before[path] != after[path]] == ["au.csv"]
    capsys.readouterr()
    command("train", "fpn_maa_procedural", "--cfg-options", *SMALL, *FACES, status=2)
    assert "va.csv: labels made with other settings (cfg_options)" in capsys.readouterr().err


def test_files_of_a_submission(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    command(
        "fpnmaa",
        "submit",
        "--model",
        "work_dirs/fpn_maa_procedural",
        "--root",
        "data/faces-procedural",
        "--task",
        "expr",
    )
    assert "2 videos, 28 frames" in capsys.readouterr().out
    for name in AffWild2Layout().videos(None, 1, 0):
        found = read_annotations(f"test_result/EXPR_Set/{name}.txt", "expr")
        assert len(found) == 14 and found.min() >= 0


def test_frames_without_a_prediction(tmp_path):
    told = [("one/2", [0.5, -2.0]), ("one/4", [0.1, 0.2])]
    assert write_submission(told, dict(one=5), "va", tmp_path) == dict(one=3)
    lines = (tmp_path / "VA_Set" / "one.txt").read_text().splitlines()
    first, second = "0.5000,-0.9900", "0.1000,0.2000"
    assert lines == ["valence,arousal", first, first, first, second, second]
    write_submission(told, dict(one=5), "va", tmp_path, leading="unknown")
    assert (tmp_path / "VA_Set" / "one.txt").read_text().splitlines()[1] == "-5,-5"
    units = [("one/1", [0.55] * 6 + [0.7] * 6)]
    write_submission(units, dict(one=1), "au", tmp_path, threshold="logit")
    assert (tmp_path / "AU_Set" / "one.txt").read_text().splitlines()[1] == "0,0,0,0,0,0,1,1,1,1,1,1"
    with pytest.raises(DataError, match="no such frame"):
        write_submission([("one/6", [0, 0])], dict(one=5), "va", tmp_path)
    with pytest.raises(DataError, match="video two: not one prediction"):
        write_submission(told, dict(one=5, two=1), "va", tmp_path)


@pytest.fixture(scope="module")
def clip(folder):
    path = folder / "clip.mp4"
    pictures = sorted((folder / "data/faces-procedural/cropped_aligned/train002").glob("*.jpg"))
    with VideoWriter(path, 10) as writer:
        for picture in pictures[:8]:
            frame = np.full((48, 80, 3), 60, np.uint8)
            frame[8:40, 20:52] = read_image(str(picture))
            writer.write(frame)
    return path


def test_affect_of_a_video(folder, clip, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    boxes = "\n".join(["frame,left,top,width,height", *(f"{frame},20,8,32,32" for frame in range(1, 8))])
    (folder / "boxes.csv").write_text(boxes)
    writes = ("--out", "affect.csv", "--plot", "affect.png", "--video", "annotated.mp4")
    command("affect", clip, *writes, "--model", "work_dirs/fpn_maa_procedural", "--boxes", "boxes.csv", "--smooth", 0.2)
    assert "8 frames, 7 with a face (the listed boxes)" in capsys.readouterr().out
    rows = list(csv.DictReader((folder / "affect.csv").open()))
    assert [row["frame"] for row in rows] == list("1234567") and rows[0]["FaceRectX"] == "20" and rows[0]["Pitch"] == ""
    assert {"AU01", "AU26", "happiness", "valence", "arousal"} <= set(rows[0])
    assert sum(float(rows[0][name]) for name in EXPRESSIONS[:7]) == pytest.approx(1, abs=1e-4)
    assert (folder / "affect.png").stat().st_size > 5000
    frames = list(VideoFrames(folder / "annotated.mp4"))
    assert len(frames) == 8 and frames[5].shape == (48, 80, 3)
    options = ("--columns", "openface", "--model", "work_dirs/fpn_maa_procedural", "--flip")
    command("affect", clip, "--out", "o.csv", *options)
    captured = capsys.readouterr()
    assert "each whole frame is taken as one face" in captured.err
    rows = list(csv.DictReader((folder / "o.csv").open()))
    assert rows[0]["frame"] == "1" and rows[7]["timestamp"] == "0.7" and set(rows[0]["AU12_c"]) <= set("01")
    command("affect", clip, "--out", "affect.csv", status=2)
    assert "no weights: give --checkpoint" in capsys.readouterr().err
    (folder / "broken.csv").write_text("frame,left,top,width,height\n0,1,2,0,4\n")
    command("affect", clip, "--out", "a.csv", "--random-weights", "--boxes", "broken.csv", status=2)
    assert "broken.csv, line 2: a face box" in capsys.readouterr().err


def test_smoothing_leaves_out_what_is_not_there():
    frame = np.array([0, 1, 1, 5])
    faces = [FoundFace(number, (0, 0, 8, 8)) for number in (0, 0, 1, 0)]
    values = np.array([[0.0, 0], [1.0, 0], [9.0, 9], [1.0, 0]])
    table = AffectTable(frame, frame / 10, faces, dict(va=values), (), 6)
    found = table.smoothed(0.1).values["va"][:, 0]
    near, far = np.exp(-0.5), np.exp(-0.5 * 16)
    assert found[0] == pytest.approx(near / (1 + near), abs=1e-3) and found[2] == 9
    assert found[3] == pytest.approx((1 + far) / (1 + far)) and table.smoothed(0) is table


def test_boxes_of_pyfeat_and_the_turn_of_a_head(tmp_path):
    path = tmp_path / "fex.csv"
    path.write_text("frame,FaceRectX,FaceRectY,FaceRectWidth,FaceRectHeight\n0,1,2,3,4\n1,,,,\n2,5,6,7,8\n2,1,1,2,2\n")
    faces = ListedFaces(str(path))
    assert [face.box for face in faces(2, None)] == [(5, 6, 7, 8), (1, 1, 2, 2)] and not faces(1, None)
    ahead = np.array([[44, 40], [56, 40], [50, 46], [45.8, 52.3], [54.2, 52.3]], np.float64)
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rolled = (ahead - 50) @ turn.T + 50
    assert abs(head_pose(ahead, (100, 100))[2]) < 2
    assert head_pose(rolled, (100, 100))[2] == pytest.approx(20, abs=3)
    aside = np.zeros((5, 2))
    aside[2, 0] = 3  # the tip of the nose
    assert head_pose(ahead + aside, (100, 100))[1] > 5 > -5 > head_pose(ahead - aside, (100, 100))[1]
