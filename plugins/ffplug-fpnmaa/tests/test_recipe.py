"""Teachers, their labels and the student as one recipe, and what is done with the student, through the command line."""

import csv
import json
import re

import numpy as np
import pytest
from ffplug_face.crops import Face, FaceDetector
from ffplug_face.testing import write_onnx, yunet_outputs
from ffplug_fpnmaa.datasets.annotations import read_annotations
from ffplug_fpnmaa.datasets.layouts import AffWild2Layout
from ffplug_fpnmaa.labels import ACTION_UNITS, EXPRESSIONS
from ffplug_fpnmaa.submission import write_submission
from ffplug_fpnmaa.tracking import DetectedFaces, FoundFace, ListedFaces, head_pose, overlap_of
from ffplug_fpnmaa.video import AffectTable

import ffplug
from ffplug.apis.run_folder import read_model_config
from ffplug.apis.video import VideoFrames, VideoWriter
from ffplug.cli import cli, run
from ffplug.datasets import read_image
from ffplug.errors import ConfigError, DataError

pytest.importorskip("mmpretrain", reason="the backbones need onedl-mmpretrain")

SMALL = (
    "model.backbone.stem_channels=4",
    "model.backbone.base_channels=4",
    "model.neck.in_channels=[4,8,16,32]",
    "model.image_size=32",
    "train_dataloader.dataset.pipeline.2.size=32",
    "val_dataloader.dataset.pipeline.1.size=32",
    "train_cfg.max_iters=2",
    "train_cfg.val_interval=2",
    "train_dataloader.batch_size=8",
    "default_hooks.checkpoint.interval=2",
    "default_hooks.logger.interval=1",
)
FACES = (
    "prepare_data.0.scenes=2",
    "prepare_data.0.frames=14",
    "prepare_data.0.size=(32,32)",
    "prepare_data.1.dataset.pipeline.1.size=32",
)
TEACHERS = dict(option.split("=", 1) for option in SMALL)


def command(*arguments, status=0):
    assert run(cli, [str(argument) for argument in arguments], "ffplug") == status


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the recipe was run."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # Laying out the configs that four trainings write would take as long as the trainings.
        patch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, **style: (text, False))
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
    nobody, *rows = csv.DictReader((folder / "affect.csv").open())
    assert nobody["frame"] == "0" and nobody["FaceRectX"] == nobody["valence"] == nobody["Identity"] == ""
    assert [row["frame"] for row in rows] == list("1234567") and rows[0]["FaceRectX"] == "20" and rows[0]["Pitch"] == ""
    assert {"AU01", "AU26", "happiness", "valence", "arousal"} <= set(rows[0]) and rows[0]["Identity"] == "Person_0"
    again = ListedFaces("affect.csv")  # boxes of one table are good for another run
    assert not again(0, None) and again(7, None)[0].box == (20, 8, 32, 32)
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
    table = AffectTable(frame, faces, dict(va=values), (), 6, 10.0, ())
    found = table.smoothed(0.1).values["va"][:, 0]
    near, far = np.exp(-0.5), np.exp(-0.5 * 16)
    assert found[0] == pytest.approx(near / (1 + near), abs=1e-3) and found[2] == 9
    assert found[3] == pytest.approx((1 + far) / (1 + far)) and table.smoothed(0) is table


def test_a_detector_finds_the_faces_of_a_video(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    with VideoWriter("two.mp4", 10) as writer:
        for level in (60, 90, 120):
            writer.write(np.full((64, 64, 3), level, np.uint8))
    found = yunet_outputs(64, {(6, 6): 1.0, (3, 2): 2.0})
    found["kps_8"][0, 2 * 8 + 3] = [0.6, 0.1, 1.4, 0.1, 0.9, 0.5, 0.7, 0.9, 1.3, 0.9]
    write_onnx(folder / "yunet.onnx", found, 64)
    options = ("two.mp4", "--out", "two.csv", "--model", "work_dirs/fpn_maa_procedural")
    command("affect", *options, "--detector", "yunet.onnx", "--faces", 0, "--columns", "openface")
    assert "3 frames, 3 with a face (all faces that YuNet finds)" in capsys.readouterr().out
    rows = list(csv.DictReader((folder / "two.csv").open()))
    assert [(row["frame"], row["face_id"]) for row in rows] == [(frame, face) for frame in "123" for face in "01"]
    assert {row["confidence"] for row in rows} == {"0.9"} and {row["success"] for row in rows} == {"1"}
    assert float(rows[0]["pose_Ry"]) > 0  # the nose points to the picture's left
    command("affect", *options, "--detector", "yunet.onnx")
    assert "the largest face that YuNet finds" in capsys.readouterr().out
    rows = list(csv.DictReader((folder / "two.csv").open()))
    assert [float(rows[1][f"FaceRect{side}"]) for side in ("X", "Y", "Width", "Height")] == pytest.approx(
        [20, 6, 16, 24], abs=1e-3
    )
    write_onnx(folder / "yunet.onnx", yunet_outputs(64, {}), 64)
    command("affect", *options, "--detector", "yunet.onnx", status=2)
    assert "two.csv: no face in any of 3 frames" in capsys.readouterr().err
    command("affect", *options, "--detector", "other.onnx", status=2)
    assert "other.onnx: no such file. YuNet is" in capsys.readouterr().err
    (folder / "half.mp4").write_bytes((folder / "two.mp4").read_bytes()[:300])
    command("affect", "half.mp4", *options[1:], status=2)
    assert "half.mp4" in capsys.readouterr().err


class Told(FaceDetector):
    """A detector that finds what it is told, frame by frame."""

    def __init__(self, *frames):
        self.frames = iter(frames)

    def __call__(self, image):
        points = np.array([[44, 40], [56, 40], [50, 46], [46, 52], [54, 52]], np.float64)
        return [Face(box, points, 0.9) for box in next(self.frames)]


def test_faces_keep_their_numbers():
    one, near, two, far = (10, 10, 20, 20), (14, 12, 20, 20), (50, 10, 18, 18), (80, 80, 30, 30)
    finder = DetectedFaces(Told([one, two], [two, near], [two], [near, far], [], [], [near]), count=0, patience=1)
    image = np.zeros((100, 100, 3), np.uint8)
    numbers = [{face.box: face.face for face in finder(index, image)} for index in range(7)]
    assert numbers[0] == {one: 0, two: 1} and numbers[1] == {two: 1, near: 0} and numbers[2] == {two: 1}
    assert numbers[3] == {near: 0, far: 2}  # it had been away for a frame
    assert numbers[6] == {near: 3}  # and now for two
    largest = DetectedFaces(Told([one, two], [far, one]))
    assert [face.face for index in (0, 1) for face in largest(index, image)] == [0, 2]
    assert overlap_of(one, near) == pytest.approx(16 * 18 / (800 - 16 * 18)) and overlap_of(one, far) == 0
    with pytest.raises(ConfigError, match="overlap=0"):
        DetectedFaces(Told(), overlap=0)


def test_thresholds_of_units_go_with_the_weights(folder, clip, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    root = ("--root", "data/faces-procedural")
    command("fpnmaa", "thresholds", "--model", "work_dirs/fpn_maa_procedural", *root, "--out", "tuned.safetensors")
    told = capsys.readouterr().out
    before, after = (float(value) for value in re.search(r"F1 ([.\d]+) -> ([.\d]+)", told).groups())
    assert after >= before and "AU26 " in told
    limits = ffplug.build_model(read_model_config(folder / "tuned.safetensors")).head.thresholds
    assert len(limits) == 12 and len(set(limits)) > 1
    command("affect", "clip.mp4", "--out", "t.csv", "--columns", "openface", "--checkpoint", "tuned.safetensors")
    rows = list(csv.DictReader((folder / "t.csv").open()))
    units = [f"AU{unit:02d}" for unit in ACTION_UNITS]
    for unit, limit in zip(units, limits, strict=True):
        assert all(int(row[f"{unit}_c"]) == (float(row[f"{unit}_p"]) > limit) for row in rows)
    command("fpnmaa", "submit", "--checkpoint", "tuned.safetensors", *root, "--task", "au")
    assert "2 videos, 28 frames" in capsys.readouterr().out
    command("fpnmaa", "thresholds", "--model", "work_dirs/fpn_maa_procedural", *root, "--out", "tuned.pt", status=2)
    assert "ends in .safetensors" in capsys.readouterr().err


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
