"""Alignment, crops, curves of expression, and the detector's errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ffplug_face.crops import (
    ALIGNED,
    CURVES,
    FIVE_POINTS,
    NoFaceError,
    Similarity,
    YuNet,
    align,
    expression_curves,
    faces_of_rows,
    five_points,
)
from ffplug_face.models import OpenHead
from ffplug_face.sequences import face_scene
from ffplug_face.testing import write_onnx, yunet_outputs

from ffplug.errors import CheckpointError, DataError


def turned(angle: float, scale: float, shift: tuple[float, float]) -> Similarity:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return Similarity(np.array([[c, -s], [s, c]]), np.array(shift))


def test_a_similarity_is_found_again():
    rng = np.random.default_rng(0)
    points, truth = rng.normal(0, 20, (9, 2)), turned(0.7, 1.8, (30.0, -12.0))
    found = Similarity.fit(points, truth(points))
    np.testing.assert_allclose(found.matrix, truth.matrix, atol=1e-12)
    np.testing.assert_allclose(found.shift, truth.shift, atol=1e-10)
    np.testing.assert_allclose(truth.inverse()(truth(points)), points, atol=1e-10)
    target = truth(points)
    target[0] += 50  # without weight it has no say
    weights = np.ones(9)
    weights[0] = 0
    np.testing.assert_allclose(Similarity.fit(points, target, weights).matrix, truth.matrix, atol=1e-12)
    # Of all similarities it is the nearest in least squares: nudging it makes it worse.
    best = Similarity.fit(points, target)
    error = ((best(points) - target) ** 2).sum()
    for nudge in (turned(0.01, 1.0, (0, 0)), turned(0.0, 1.01, (0, 0)), turned(0.0, 1.0, (0.1, 0))):
        other = Similarity(best.matrix @ nudge.matrix, best.shift + nudge.shift)
        assert ((other(points) - target) ** 2).sum() > error
    for source, target in ((points, points[:3]), (np.zeros((3, 2)), points[:3]), (np.full((3, 2), np.nan), points[:3])):
        with pytest.raises(DataError):
            Similarity.fit(source, target)


def test_crops_show_the_face_in_its_place_and_flow_follows():
    head = OpenHead()
    options = {"size": (128, 128), "frames": (5,), "translation": 0.0, "fill": (0.8, 0.85)}
    scene = face_scene(head, 4, 2, **options)
    points = five_points(head.landmark_names, scene.landmarks(0).numpy())
    assert points[0, 0] < points[1, 0]  # the subject's right eye is on the picture's left
    crop = align(points, (96, 96))
    np.testing.assert_allclose(crop(points), ALIGNED * 95, atol=12)
    assert np.abs((crop(points) - ALIGNED * 95).mean(0)).max() < 1e-9
    flow = scene.flow(0).facial.permute(1, 2, 0).numpy()
    warped = crop.warp_flow(flow, (96, 96))
    middle = np.array([48.0, 52.0])
    source = crop.inverse()(middle)
    before = flow[round(source[1]), round(source[0])]
    expected = crop(source + before) - middle
    np.testing.assert_allclose(warped[52, 48], expected, atol=0.1)
    # A quarter turn and twice the size: what went right by 1 goes down by 2.
    quarter = turned(np.pi / 2, 2.0, (40.0, 0.0)).warp_flow(np.tile([1.0, 0.0], (20, 20, 1)), (20, 20))
    np.testing.assert_allclose(quarter, np.tile([0.0, 2.0], (20, 20, 1)), atol=1e-5)
    picture = scene.image(0).permute(1, 2, 0).numpy()
    assert crop.warp(picture, (96, 80)).shape == (96, 80, 3)
    small = turned(0.0, 0.1, (0.0, 0.0)).warp(np.indices((100, 100)).sum(0) % 2 * 255.0, (10, 10))
    assert np.abs(small[2:-2, 2:-2] - 127.5).max() < 10  # smoothed, not aliased


def test_expression_curves_rise_with_their_action_and_not_with_the_head():
    head = OpenHead()
    still = {"yaw_pitch_roll": (0.0, 0.0, 15.0), "frames": (10,), "size": (256, 256), "eases": ("bump",), "gaze": 0.0}
    calm = face_scene(head, 0, 0, **still, emotions=("neutral",), extra_actions=0)
    names = head.landmark_names
    curves = expression_curves(names, np.stack([calm.landmarks(k).numpy() for k in range(10)]))
    assert set(curves) == {*CURVES, "motion"}
    assert max(np.abs(curve).max() for curve in curves.values()) < 0.02
    wide = face_scene(head, 0, 0, **still, emotions=("surprise",), extra_actions=0, intensity=(0.9, 1.0))
    curves = expression_curves(names, np.stack([wide.landmarks(k).numpy() for k in range(10)]))
    apex = int(wide.sequence.progress.argmax())
    assert curves["mouth_open"].argmax() == apex and curves["mouth_open"][apex] > 0.15
    assert curves["brow_left_up"][apex] > 0.02 and curves["motion"].argmax() == apex
    with pytest.raises(DataError, match="nose_tip"):
        expression_curves(["left_eye", "right_eye"], np.zeros((2, 2, 2)))
    with pytest.raises(DataError, match="no landmark 'mouth_right'"):
        five_points(["right_eye", "left_eye", "nose_tip"], np.zeros((3, 2)))


def test_the_detector_says_what_it_needs(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no such file\. YuNet is .*opencv_zoo"):
        YuNet(tmp_path / "yunet.onnx")
    (tmp_path / "yunet.onnx").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match="OpenCV can't read it"):
        YuNet(tmp_path / "yunet.onnx")
    row = np.arange(15.0)
    small, large, broken = row.copy(), row + 1, np.full(15, np.nan)
    faces = faces_of_rows(np.stack([small, broken, large]))
    assert [face.score for face in faces] == [15.0, 14.0] and faces_of_rows(None) == []
    assert faces[1].box == (0, 1, 2, 3) and faces[1].points.tolist() == row[4:14].reshape(5, 2).tolist()
    assert len(FIVE_POINTS) == len(ALIGNED)


def test_the_detector_reads_what_its_network_says(tmp_path: Path):
    picture = np.full((64, 64, 3), 90, np.uint8)
    path = write_onnx(tmp_path / "two.onnx", yunet_outputs(64, {(6, 6): 1.0, (3, 2): 2.0}), 64)
    first, second = YuNet(path)(picture)
    np.testing.assert_allclose(first.box, [20, 6, 16, 24], atol=1e-4)  # the larger one first
    np.testing.assert_allclose(
        first.points, [[24, 16.8], [25.6, 18.4], [27.2, 20], [28.8, 21.6], [30.4, 23.2]], atol=1e-4
    )
    np.testing.assert_allclose(second.box, [48, 42, 8, 16], atol=1e-4)
    assert first.score == pytest.approx(0.9) and YuNet(path).one(picture).box == first.box
    assert YuNet(path, score=0.95)(picture) == []
    none = YuNet(write_onnx(tmp_path / "none.onnx", yunet_outputs(64, {}), 64))
    assert none(picture) == []
    with pytest.raises(NoFaceError, match=r"clip/3\.png: no face found"):
        none.one(picture, "clip/3.png")
    for wrong in (picture[..., 0], picture.astype(np.float32), np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(DataError, match="expected H×W×3 of uint8"):
            none(wrong)
    foreign = write_onnx(tmp_path / "foreign.onnx", {"depth": np.zeros((1, 2))}, 64)
    with pytest.raises(CheckpointError, match=r"foreign\.onnx: not a model of YuNet"):
        YuNet(foreign)(picture)
    (tmp_path / "half.onnx").write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"half\.onnx"):
        YuNet(tmp_path / "half.onnx")(picture)
