"""Sequences: what is drawn follows from its seed alone, and flow, frames and labels belong together."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_face.actions import EMOTIONS
from ffplug_face.models import HeadData, HeadModel, OpenHead, ProceduralHead
from ffplug_face.models.head import REGIONS
from ffplug_face.rendering import Light
from ffplug_face.rendering.body import _border
from ffplug_face.sequences import EASES, FaceScene, SequenceOptions, draw_sequence, face_scene

from ffplug.datasets import write_image
from ffplug.errors import ConfigError, DataError
from ffplug.ops import backward_warp

SMALL = {"size": (64, 56), "frames": (5,)}


@pytest.fixture(scope="module")
def head() -> ProceduralHead:
    return ProceduralHead(24, 32)


def contents(scene: FaceScene, frame: int) -> list[torch.Tensor]:
    flow = scene.flow(frame)
    return [scene.image(frame), scene.depth(frame), scene.landmarks(frame), *dataclasses.astuple(flow)]


def test_a_sequence_is_the_same_whoever_draws_it(head):
    alone = face_scene(head, 7, 3, **SMALL)
    expected = contents(alone, 2)
    for index in range(3):  # others drawn before, and other frames of it
        face_scene(head, 7, index, **SMALL)
    again = face_scene(head, 7, 3, **SMALL)
    again.image(0), again.flow(3)
    for one, other in zip(expected, contents(again, 2), strict=True):
        assert torch.equal(one, other)
    assert alone.sequence.record() == again.sequence.record()
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(threads, 2))
    try:
        split = contents(face_scene(ProceduralHead(24, 32), 7, 3, **SMALL), 2)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(expected, split, strict=True))
    for seed, index in ((7, 4), (8, 3)):
        assert face_scene(head, seed, index, **SMALL).sequence.seed != alone.sequence.seed
        assert not torch.equal(face_scene(head, seed, index, **SMALL).image(2), expected[0])


def test_facial_flow_is_head_and_expression_flow(head):
    scene = face_scene(OpenHead(), 1, 0, size=(96, 96), frames=(5,), emotions=("surprise",))
    flow = scene.flow(1)
    assert (flow.facial - flow.head - flow.expression).abs().max() <= 1e-4
    assert flow.expression.abs().max() > 0.3 and flow.head.abs().max() > 0.3
    for motion in (flow.facial, flow.head, flow.expression):
        assert motion.shape == (2, 96, 96) and motion.dtype == torch.float32
    assert flow.expression[:, ~flow.mask].abs().max() == 0
    behind = scene.depth(1) == 0
    assert flow.facial[:, behind].abs().max() == 0 and flow.visible[behind].float().mean() > 0.9
    bare = face_scene(OpenHead(), 1, 0, size=(96, 96), frames=(5,), emotions=("surprise",), body=False)
    assert bare.flow(1).facial[:, ~bare.flow(1).mask].abs().max() == 0
    # The head's flow is that to the picture in which the expression was held.
    still = face_scene(OpenHead(), 1, 0, size=(96, 96), frames=(5,), emotions=("neutral",), extra_actions=0, gaze=0.0)
    calm = still.flow(1)
    assert torch.equal(calm.facial, calm.head) and calm.expression.abs().max() == 0
    same = scene.flow(2, 2)
    assert same.facial.abs().max() == 0 and same.head.abs().max() == 0 and bool(same.visible.all())


def test_held_frames_keep_the_expression(head):
    scene = face_scene(head, 0, 5, **SMALL, emotions=("surprise",), intensity=(1.0, 1.0), eases=("smooth",))
    assert torch.equal(scene.image(4), scene.image(4, 4))
    assert not torch.equal(scene.image(4), scene.image(4, 0))
    points = dict(zip(head.landmark_names, scene.landmarks(4) - scene.landmarks(0), strict=True))
    assert len(points) == 22
    held = scene.state(4, 0).vertices - scene.state(0, 0).vertices
    lower = head.masks[:, REGIONS.index("lips")] > 0.5
    assert (scene.state(4, 4).vertices - scene.state(4, 0).vertices)[lower].norm(dim=1).max() > 5e-3
    assert held.isfinite().all()


def test_labels_belong_to_the_picture(head):
    scene = face_scene(head, 3, 1, **SMALL, yaw_pitch_roll=(5.0, 3.0, 3.0))
    labels, depth, flow = scene.regions(0), scene.depth(0), scene.flow(0)
    assert torch.equal(labels >= 0, flow.mask) and bool((depth[flow.mask] > 0).all())
    points = dict(zip(head.landmark_names, scene.landmarks(0), strict=True))
    for name in ("right_eye", "left_eye"):
        x, y = points[name].round().long().tolist()
        window = labels[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        assert REGIONS.index("eyes") in window.unique().tolist(), name
    # Landmarks move as the flow at their pixels does.
    moved = scene.landmarks(1) - scene.landmarks(0)
    for name, step in zip(head.landmark_names, moved, strict=True):
        x, y = points[name].round().long().tolist()
        if name.startswith("brow") and flow.mask[y, x]:
            assert (flow.facial[:, y, x] - step).norm() < 0.5, name


@pytest.mark.parametrize("ease", EASES)
def test_what_is_drawn(ease):
    head = OpenHead()
    names = list(head.expression_names)
    for index, emotion in enumerate(EMOTIONS):
        options = SequenceOptions(emotions=(emotion,), eases=(ease,), extra_actions=0, frames=(5, 10, 15, 20))
        sequence = draw_sequence(head, 0, index, options)
        count = len(sequence)
        assert count in (5, 10, 15, 20) and sequence.emotion == emotion
        assert sequence.expression.shape == (count, 52) and sequence.pose.shape == (count, 15)
        active = {names[k].removesuffix("Left").removesuffix("Right") for k in sequence.expression.max(0).nonzero()[0]}
        assert active == {name.rstrip("*?") for name in EMOTIONS[emotion]}
        assert sequence.expression.min() >= 0 and sequence.expression.max() <= 1
        if active:
            strength = sequence.expression.max(1)
            assert strength[0] == pytest.approx(
                0.15 * strength.max() / max(sequence.progress.max() * 0.85 + 0.15, 1e-9)
            )
            apex = int(strength.argmax())
            assert apex == count - 1 if ease == "smooth" else 0 < apex < count - 1
        # The root takes 3/10 of the turn, the neck the rest.
        np.testing.assert_allclose(0.7 * sequence.pose[:, :3], 0.3 * sequence.pose[:, 3:6], atol=1e-12)
        assert np.abs(np.diff(sequence.intensity)).max() <= 0.03
        assert np.abs(sequence.pose[:, 6:9]).max() == 0  # jawOpen is an action here
        json.dumps(sequence.record())
    counts = {len(draw_sequence(head, 1, index)) for index in range(24)}
    assert counts == {5, 10, 15, 20}


def test_heads_without_names_draw_coefficients_and_the_jaw(head):
    values = {
        key: getattr(head, key).numpy() for key in ("template", "faces", "shape_directions", "expression_directions")
    }
    values |= {key: getattr(head, key).numpy() for key in ("joint_regressor", "weights")}
    unnamed = HeadModel(HeadData(**values, parents=head.parents))
    sequence = draw_sequence(unnamed, 0, 0, SequenceOptions(frames=(5,), eases=("smooth",)))
    assert np.abs(sequence.expression[-1]).min() > 0
    np.testing.assert_allclose(sequence.expression[0], 0.15 * sequence.expression[-1])
    assert 0 < sequence.pose[-1, 6] <= 0.5


def test_the_head_fills_its_share_and_stays_in_view():
    head = OpenHead()
    for index in range(6):
        scene = face_scene(head, 2, index, size=(80, 64), frames=(5,), translation=0.0, yaw_pitch_roll=(1.0, 1.0, 1.0))
        mask = scene.flow(0).mask
        rows = mask.any(1).nonzero().flatten()
        assert 0.4 < (rows[-1] - rows[0] + 1) / 80 < 1.0
        points = scene.landmarks(0)
        assert (points > 0).all() and (points < torch.tensor([64, 80])).all()


@pytest.mark.parametrize("make", [OpenHead, lambda: ProceduralHead(24, 32)], ids=["open", "procedural"])
def test_the_neck_ends_in_a_collar(make):
    head = make()
    for index in range(4):
        scene = face_scene(head, 5, index, size=(96, 96), frames=(2,), yaw_pitch_roll=(25.0, 8.0, 5.0))
        seen, own = scene.depth(0) > 0, scene.flow(0).mask
        assert (own & ~seen).sum() == 0 and (seen & ~own).sum() > 100
        # Below the lowest seen point of the neck there is shirt in every column, down to the picture's edge.
        columns = own.any(0).nonzero().flatten()
        middle = int(columns.float().mean())
        lowest = int(own[:, middle].nonzero().max())
        assert bool(seen[lowest:, middle].all())
        # The neck's open end is inside of the collar: what is seen there lies in front of it.
        ends = scene.state(0, 0).projected()[_border(head)]
        inside = ((ends[:, :2] >= 0) & (ends[:, :2] <= 95)).all(1)
        x, y = ends[inside, :2].round().long().T
        assert (scene.depth(0)[y, x] < ends[inside, 2] - 1e-3).float().mean() > 0.97
        # The body turns with the root, and the expression does not move it.
        moved, still = scene.flow(0), scene.state(0, 0)
        assert torch.equal(moved.facial[:, seen & ~own], moved.head[:, seen & ~own])
        assert moved.facial[:, seen & ~own].abs().max() > 0.1 and len(still.vertices) == len(head.template)


def test_a_background_that_moves_has_its_flow(head):
    options = {**SMALL, "size": (96, 88), "drift": 0.05, "light": "lamps", "backgrounds": "analytic"}
    scene = face_scene(head, 1, 2, **options)
    first, then = (scene.image(frame).float() for frame in (1, 2))
    flow = scene.flow(1)
    behind = (scene.depth(1) == 0) & flow.visible
    inside = -torch.nn.functional.max_pool2d(-behind[None].float(), 5, 1, 2)[0] > 0
    assert flow.head[:, behind].norm(dim=0).mean() > 0.5 and flow.expression[:, behind].abs().max() == 0
    still = (then - first).abs().mean(0)[inside].mean()
    warped = backward_warp(then[None], flow.facial[None])[0]
    assert (warped - first).abs().mean(0)[inside].mean() < min(1.0, 0.3 * still)
    # The way there and back is none, and no way at all is exactly none.
    forth, back = scene.backdrop.flow(0.2, 0.7)[0], scene.backdrop.flow(0.7, 0.2)[0]
    assert (forth + backward_warp(back[None].float(), forth[None].float())[0])[:, 20:-20, 20:-20].abs().max() < 1e-3
    assert scene.backdrop.flow(0.4, 0.4)[0].abs().max() < 1e-12
    # What leaves the picture is not visible.
    height, width = flow.mask.shape
    x = torch.arange(width) + flow.facial[0]
    y = torch.arange(height)[:, None] + flow.facial[1]
    outside = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
    assert outside.any() and not flow.visible[outside].any()
    held = face_scene(head, 1, 2, **{**options, "drift": 0.0})
    assert torch.equal(held.background, scene.background)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_scene_on_a_gpu_is_the_same(head):
    options = {**SMALL, "drift": 0.05}
    here, there = face_scene(head, 3, 1, **options), face_scene(ProceduralHead(24, 32).cuda(), 3, 1, **options)
    for index, (one, other) in enumerate(zip(contents(here, 1), contents(there, 1), strict=True)):
        assert other.device.type == "cuda", index
        off = (one.double() - other.cpu().double()).abs()
        # Triangles that meet at a pixel's centre may change places; everything else is rounding.
        assert (off > 2e-3 * (1 + 500 * (index == 0))).double().mean() < 0.005, index
    assert there.regions(0).device.type == "cuda"


@pytest.mark.parametrize("emotion", ["happiness", "surprise"])
def test_a_drawn_pair_warps_onto_itself(emotion):
    scene = face_scene(
        OpenHead(), 2, 1, size=(128, 128), frames=(5,), emotions=(emotion,), flicker=0.0, yaw_pitch_roll=(5.0, 3.0, 3.0)
    )
    scene.sequence = dataclasses.replace(scene.sequence, light=Light.even(0.9))
    first, then, held = (scene.image(*which).float() for which in ((1,), (2,), (2, 1)))
    flow = scene.flow(1)
    inside = -torch.nn.functional.max_pool2d(-(flow.visible & flow.mask)[None].float(), 5, 1, 2)[0] > 0

    def off(picture: torch.Tensor, motion: torch.Tensor) -> float:
        return float((backward_warp(picture[None], motion[None])[0] - first).abs().mean(0)[inside].mean())

    assert flow.facial[:, inside].norm(dim=0).mean() > 0.5
    # Facial flow leads to the next frame, head flow to the one in which the expression is held.
    exact = off(then, flow.facial)
    assert exact < 3.0 and exact < 0.6 * off(then, torch.zeros_like(flow.facial)) and exact < off(then, flow.head)
    assert off(held, flow.head) < 3.0 and off(held, flow.head) < off(held, flow.facial)


def test_backgrounds_and_textures_of_the_user(head, tmp_path: Path):
    for name, value in (("backgrounds", (0, 0, 255)), ("skins", (255, 0, 0))):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "one.png", np.full((32, 32, 3), value, np.uint8))
    scene = face_scene(head, 0, 0, **SMALL, skins=str(tmp_path / "skins"), backgrounds=str(tmp_path / "backgrounds"))
    picture, mask = scene.image(0), scene.flow(0).mask
    inside = -torch.nn.functional.max_pool2d(-mask[None].float(), 3, 1, 1)[0] > 0
    outside = torch.nn.functional.max_pool2d(mask[None].float(), 3, 1, 1)[0] == 0
    assert (picture[2, outside].float() > picture[0, outside].float()).float().mean() > 0.9
    assert (picture[0, inside] > picture[2, inside]).float().mean() > 0.95
    for name in ("skins", "backgrounds"):
        with pytest.raises(DataError, match="no such folder"):
            face_scene(head, 0, 0, **SMALL, **{name: str(tmp_path / "none")})


def test_options_that_do_not_do():
    for options, message in (
        ({"emotions": ("happyness",)}, "did you mean 'happiness'"),
        ({"emotions": ()}, "emotions is empty"),
        ({"frames": (1,)}, "each at least 2"),
        ({"size": (4, 64)}, "at least 8 pixels"),
        ({"eases": ("jump",)}, "'jump' is none"),
    ):
        with pytest.raises(ConfigError, match=message):
            SequenceOptions(**options)
