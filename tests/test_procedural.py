from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from mmengine.config import Config

from ffplug.cli.synth import command as synth
from ffplug.datasets import (
    FlyingChairsDataset,
    FlyingThings3DDataset,
    FlyingThings3DSubsetDataset,
    HD1KDataset,
    KITTI2012Dataset,
    KITTI2015Dataset,
    SintelDataset,
    SpringDataset,
)
from ffplug.datasets.layouts import detect_layout, get_layout, layout_names
from ffplug.datasets.procedural import (
    ProceduralFlowDataset,
    Recipe,
    SceneOptions,
    TextureSource,
    random_scene,
    write_procedural,
)
from ffplug.datasets.procedural import textures as textures_module
from ffplug.datasets.procedural.effects import motion_blur
from ffplug.datasets.procedural.motion import LayerMotion, Oscillation, Shear
from ffplug.datasets.procedural.shapes import Bars, Blob, Ellipse, Polygon, Ring, WithHoles
from ffplug.datasets.procedural.stand_in import replace_data_root
from ffplug.datasets.procedural.textures import cubic_sample
from ffplug.datasets.public_layouts import kitti_size, scan_lines
from ffplug.errors import ConfigError, DataError
from ffplug.registry import DATASETS, PREPARERS


def bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    u, v = (x - left)[..., None], (y - top)[..., None]
    image = image.astype(float)
    upper = image[top, left] * (1 - u) + image[top, left + 1] * u
    return upper * (1 - v) + (image[top + 1, left] * (1 - u) + image[top + 1, left + 1] * u) * v


def grid(size):
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    return x, y


def scenes(difficulty="standard", count=8, textures="analytic", size=(96, 120)):
    source = TextureSource(textures)
    return [random_scene((7, i), size, SceneOptions.preset(difficulty), source) for i in range(count)]


# Shapes


@pytest.mark.parametrize(
    "shape",
    [
        Ellipse(20, 9),
        Blob(15, (0.2, -0.1, 0.05), (0.3, 1.0, 2.0)),
        Polygon(((-10, -8), (12, -9), (0, 0), (11, 12), (-9, 10))),
        Ring(Ellipse(15, 12), 3),
        Bars(20, 12, 8, 2),
        WithHoles(Ellipse(20, 18), ((3, 4, 5),)),
    ],
    ids=lambda shape: type(shape).__name__,
)
def test_distance_has_the_right_sign_and_slope(shape):
    x, y = np.meshgrid(np.linspace(-30, 30, 301), np.linspace(-30, 30, 301))
    distance = shape.distance(x, y)
    inside = distance < 0
    assert 0.02 < inside.mean() < 0.6
    assert not inside[np.hypot(x, y) > shape.radius].any()
    rim = np.abs(distance) < 0.5
    slope = np.hypot(*np.gradient(distance, 0.2))[rim]
    assert np.median(slope) == pytest.approx(1, abs=0.06)


def test_polygon_agrees_with_even_odd_counting():
    vertices = ((-10.0, -8.0), (12.0, -9.0), (0.0, 0.5), (11.0, 12.0), (-9.0, 10.0))
    points = np.random.default_rng(0).uniform(-15, 15, (2000, 2))

    def inside(px, py):
        crossings = 0
        for (ax, ay), (bx, by) in zip(vertices, vertices[1:] + vertices[:1], strict=True):
            if (ay > py) != (by > py) and px < ax + (py - ay) * (bx - ax) / (by - ay):
                crossings += 1
        return crossings % 2 == 1

    expected = [inside(*point) for point in points]
    assert ((Polygon(vertices).distance(*points.T) < 0) == expected).all()


def test_ellipse_is_inside_at_its_very_centre():
    assert Ellipse(5, 3).distance(np.zeros(1), np.zeros(1))[0] == pytest.approx(-3)


# Motion


def elastic_motion():
    return LayerMotion(
        centre=(40.0, 30.0),
        angle=0.4,
        shift_x=(Oscillation(3, 11, 0.2), Oscillation(1, 7, 0.2)),
        shift_y=(Oscillation(-2, 13, 1.2),),
        rotation=Oscillation(0.05, 9, 0.1),
        zoom=Oscillation(0.03, 9, 2),
        stretch=Oscillation(0.02, 8, 1),
        perspective_x=Oscillation(4e-4, 12, 0.5),
        perspective_y=Oscillation(-3e-4, 12, 0.7),
        shears=tuple(Shear(a, 2.5, 50 + 10 * a, 8, a) for a in (0.1, 1.2, 2.2)),
    )


def test_motion_is_inverted_exactly():
    motion, (x, y) = elastic_motion(), grid((64, 80))
    for time_ in (0.0, 3.7, 12.0):
        back = motion.forward(*motion.inverse(x, y, time_), time_)
        np.testing.assert_allclose(back, (x, y), atol=1e-11)


def test_bounds_hold_the_layer_at_all_times():
    motion, angle = elastic_motion(), np.linspace(0, 2 * np.pi, 200)
    for time_ in np.linspace(0, 20, 9):
        x, y = motion.forward(25 * np.cos(angle), 25 * np.sin(angle), time_)
        x0, y0, x1, y1 = motion.bounds(25, time_)
        assert x0 <= x.min() and y0 <= y.min() and x1 >= x.max() and y1 >= y.max()


def test_oscillation_changes_by_its_rate():
    signal = Oscillation(2.5, 9, 0)
    assert (signal(1e-5) - signal(-1e-5)) / 2e-5 == pytest.approx(2.5)


def test_beyond_the_horizon_nothing_is_seen():
    motion = LayerMotion((0.0, 0.0), perspective_x=Oscillation(0.02, 2 * np.pi, np.pi / 2))
    x, _ = motion.inverse(np.array([0.0, 10.0, 49.0, 51.0, 200.0]), np.zeros(5), 0.0)
    assert np.isfinite(x).tolist() == [True, True, True, False, False]


# Scenes


@pytest.mark.parametrize("difficulty", ["demo", "standard", "hard"])
def test_flow_follows_points_of_the_layers(difficulty):
    for scene in scenes(difficulty, 4):
        view = scene.view(2.0)
        flow, _ = scene.flow(view, 3.0)
        for index, layer in enumerate(scene.layers):
            mine = view.layer == index
            here = layer.motion.forward(view.x[mine], view.y[mine], 2.0)
            there = layer.motion.forward(view.x[mine], view.y[mine], 3.0)
            np.testing.assert_allclose(here, (view.px[mine], view.py[mine]), atol=1e-9)
            np.testing.assert_allclose(flow[mine], (np.array(there) - here).T, atol=1e-4)


def test_flow_is_the_integral_of_small_steps():
    scene = scenes("standard", 1)[0]
    view = scene.view(1.0)
    total, _ = scene.flow(view, 2.0)
    path = np.zeros_like(total, dtype=float)
    for step in range(10):
        earlier, later = (scene.flow(view, 1 + (step + k) / 10)[0].astype(float) for k in (0, 1))
        path += later - earlier
    np.testing.assert_allclose(path, total, atol=1e-4)


@pytest.mark.parametrize("difficulty", ["demo", "hard"])
def test_occlusion_agrees_with_looking_at_every_target(difficulty):
    """Brute force: for every pixel, evaluate every layer in front of its own at the target, without boxes."""
    for scene in scenes(difficulty, 3, size=(32, 40)):
        view = scene.view(4.0)
        flow, occluded = scene.flow(view, 5.0)
        expected = np.zeros(scene.size, bool)
        for (row, column), owner in np.ndenumerate(view.layer):
            q = view.x[row, column : column + 1], view.y[row, column : column + 1]
            x, y = scene.layers[owner].motion.forward(*q, 5.0)
            hidden = not (0 <= x[0] <= scene.size[1] - 1 and 0 <= y[0] <= scene.size[0] - 1)
            for layer in scene.layers[owner + 1 :]:
                hidden |= bool(layer.shape.distance(*layer.motion.inverse(x, y, 5.0))[0] < 0)
            expected[row, column] = hidden
            assert flow[row, column] == pytest.approx([x[0] - column, y[0] - row], abs=1e-4)
        assert (occluded == expected).all()
        assert 0 < occluded.mean() < 0.9


def test_the_nearest_layer_owns_a_pixel():
    for scene in scenes("hard", 3, size=(48, 64)):
        view, (x, y) = scene.view(1.5), grid((48, 64))
        for index, layer in enumerate(scene.layers):
            seen = layer.distance(*layer.motion.inverse(x, y, 1.5)) < 0
            assert (view.layer[seen] >= index).all()
            assert seen[view.layer == index].all()


@pytest.mark.parametrize("difficulty, textures, limit", [("demo", "analytic", 1.0), ("standard", "analytic", 1.15),
                                                         ("demo", "mixed", 2.0)])  # fmt: skip
def test_warping_frame_two_gives_frame_one(difficulty, textures, limit):
    errors, unmoved = [], []
    for scene in scenes(difficulty, 16, textures, size=(128, 160)):
        view, following = scene.view(0.0), scene.view(1.0)
        flow, occluded = scene.flow(view, 1.0)
        x, y = grid(scene.size)
        warped = bilinear(following.image, x + flow[..., 0], y + flow[..., 1])
        visible = ~occluded
        errors.append(np.abs(warped - view.image)[visible].mean())
        unmoved.append(np.abs(following.image.astype(float) - view.image)[visible].mean())
    assert np.mean(errors) < limit
    assert np.mean(unmoved) > 6 * np.mean(errors)


def test_true_targets_show_the_very_colour():
    """Without interpolation, by seeing frame 2 at the exact targets: only anti-aliased contours may differ."""
    for scene in scenes("standard", 4):
        view = scene.view(0.0)
        flow, occluded = scene.flow(view, 1.0)
        x, y = grid(scene.size)
        target = scene.view(1.0, (x + flow[..., 0].astype(float), y + flow[..., 1]))
        difference = np.abs(target.image.astype(int) - view.image).max(axis=-1)[~occluded]
        assert (difference <= 1).mean() > 0.9
        assert (target.layer == view.layer)[~occluded].mean() > 0.999


def test_forward_and_backward_flow_cancel():
    for scene in scenes("standard", 4):
        view = scene.view(3.0)
        flow, occluded = scene.flow(view, 4.0)
        x, y = grid(scene.size)
        there = scene.view(4.0, (x + flow[..., 0].astype(float), y + flow[..., 1]), colours=False)
        back, _ = scene.flow(there, 3.0)
        np.testing.assert_allclose((flow + back)[~occluded & (there.layer == view.layer)], 0, atol=2e-4)


def test_any_points_can_be_seen():
    scene = scenes(count=1)[0]
    x, y = grid(scene.size)
    whole, part = scene.view(1.0), scene.view(1.0, (x[5:9, 7:30], y[5:9, 7:30]))
    assert (part.image == whole.image[5:9, 7:30]).all() and (part.layer == whole.layer[5:9, 7:30]).all()
    assert scene.view(1.0, (x, y), colours=False).image is None


def test_final_pass_blurs_fogs_and_adds_noise():
    scene = scenes("hard", 1, textures="analytic")[0]
    view = scene.view(2.0)
    final = scene.finish(view)
    assert (final == scene.finish(view)).all()
    assert 3 < np.abs(final.astype(int) - view.image).mean() < 90
    stripes = np.tile(np.float32([0, 0, 255, 255])[None, :, None], (8, 8, 3))
    along = motion_blur(stripes, np.tile(np.float32([8, 0]), (8, 32, 1)), 0.5)
    across = motion_blur(stripes, np.tile(np.float32([0, 8]), (8, 32, 1)), 0.5)
    assert along[:, 8:-8].std() < 0.3 * stripes.std()
    np.testing.assert_allclose(across, stripes, atol=1e-3)


def test_speeds_of_the_presets():
    def speeds(difficulty):
        return [
            np.linalg.norm(scene.flow(scene.view(0, colours=False), 1)[0], axis=-1).mean()
            for scene in scenes(difficulty, 40, size=(128, 160))
        ]

    demo, standard, hard = map(speeds, ("demo", "standard", "hard"))
    assert 3.5 < np.mean(demo) < 6.5
    assert np.mean(hard) > np.mean(standard)
    assert min(standard) < 1.5 and max(standard) > 4
    larger = random_scene(3, (256, 320)), random_scene(3, (128, 160))
    flows = [scene.flow(scene.view(0, colours=False), 1)[0] for scene in larger]
    assert np.linalg.norm(flows[0], axis=-1).mean() == pytest.approx(
        2 * np.linalg.norm(flows[1], axis=-1).mean(), rel=0.4
    )


def test_a_scene_is_the_same_in_every_process():
    code = (
        "from ffplug.datasets.procedural import random_scene, TextureSource; import hashlib;"
        "s = random_scene((1, 2), (48, 64), None, TextureSource('mixed')); v = s.view(1.0);"
        "print(hashlib.sha256(v.image.tobytes() + s.flow(v, 2.0)[0].tobytes() + s.finish(v).tobytes()).hexdigest())"
    )
    seen = set()
    for hash_seed in ("0", "1"):
        environment = dict(os.environ, PYTHONHASHSEED=hash_seed)
        seen.add(subprocess.run([sys.executable, "-c", code], env=environment, text=True, capture_output=True).stdout)
    assert len(seen) == 1 and len(seen.pop()) > 60
    assert (random_scene(1).view(0).image != random_scene(2).view(0).image).mean() > 0.5


def test_options_name_what_is_wrong():
    with pytest.raises(ConfigError, match="did you mean 'standard'"):
        SceneOptions.preset("standart")
    with pytest.raises(ConfigError, match=r"'nose'.*did you mean 'noise'"):
        SceneOptions.preset("demo", nose=1)


# Textures


def test_cubic_sampling_keeps_samples_and_quadratics():
    x, y = grid((12, 14))
    picture = np.stack([x**2 / 10, y + x, np.ones_like(x)], -1).astype(np.float32)
    np.testing.assert_allclose(cubic_sample(picture, x.ravel(), y.ravel()), picture.reshape(-1, 3), atol=1e-5)
    at = np.random.default_rng(0).uniform(2, 9, (2, 50))
    expected = np.stack([at[0] ** 2 / 10, at.sum(0), np.ones(50)], -1)
    np.testing.assert_allclose(cubic_sample(picture, *at), expected, atol=1e-4)


def test_pictures_continue_by_reflection():
    picture = np.random.default_rng(0).uniform(0, 255, (6, 7, 3)).astype(np.float32)
    mirrored = np.pad(picture, ((5, 5), (6, 6), (0, 0)), mode="reflect")
    x, y = grid((6, 7))
    np.testing.assert_allclose(
        cubic_sample(picture, x.ravel() - 6, y.ravel() - 5), mirrored[:6, :7].reshape(-1, 3), atol=1e-3
    )


def test_without_picture_libraries_textures_are_analytic_and_a_warning_says_so(monkeypatch, caplog):
    monkeypatch.setattr(textures_module, "PICTURES", {"no_such_library": ("data", "a.png")})
    with caplog.at_level(logging.WARNING):
        source = TextureSource("mixed")
    assert source.picture_share == 0 and "ffplug[textures]" in caplog.text
    random_scene(0, (32, 32), None, source).view(0)


def test_own_pictures(tmp_path):
    from ffplug.datasets import write_image

    with pytest.raises(DataError, match="no such folder"):
        TextureSource(str(tmp_path / "none"))
    with pytest.raises(DataError, match="no picture"):
        TextureSource(str(tmp_path))
    red = np.zeros((40, 40, 3), np.uint8)
    red[..., 0] = np.arange(40) * 6
    write_image(tmp_path / "red.png", red)
    options = SceneOptions.preset("demo", layers=(1, 1))
    assert random_scene(0, (32, 32), options, TextureSource(str(tmp_path))).view(0).image.std() > 5
    (tmp_path / "red.png").write_bytes(b"no picture")
    textures_module._load_picture.cache_clear()
    with pytest.raises(DataError, match=r"red\.png"):
        random_scene(0, (32, 32), options, TextureSource(str(tmp_path)))


# The dataset


def test_dataset_items():
    dataset = ProceduralFlowDataset(length=3, size=(48, 64), seed=5, render="both", textures="analytic")
    assert len(dataset) == 6
    item = dataset[1]
    sample = item["data_samples"]
    assert item["inputs"].shape == (2, 3, 48, 64) and str(item["inputs"].dtype) == "torch.uint8"
    assert sample.gt_flow.shape == (2, 48, 64) and sample.gt_valid.min() == 1
    assert sample.gt_occlusion.any() and sample.gt_foreground.any()
    assert sample.procedural and sample.source == "procedural scenes/clean" and sample.ori_shape == (48, 64)
    final = dataset[4]
    assert (final["data_samples"].gt_flow == sample.gt_flow).all()
    assert (final["inputs"] != item["inputs"]).any()
    assert (dataset[1]["inputs"] == item["inputs"]).all()
    assert len({dataset[i]["data_samples"].sample_id for i in range(6)}) == 6
    other = ProceduralFlowDataset(length=3, size=(48, 64), seed=6, textures="analytic")
    assert (other[1]["inputs"] != item["inputs"]).any()


def test_dataset_takes_the_pipeline_of_a_dataset_on_disk():
    config = dict(
        type="ffplug.ProceduralFlowDataset",
        length=2,
        size=(48, 64),
        pipeline=[dict(type="ffplug.LoadFlowPair"), dict(type="ffplug.PackFlowInputs")],
    )
    assert DATASETS.build(config)[0]["data_samples"].gt_flow.shape == (2, 48, 64)


@pytest.mark.parametrize(
    "arguments, message",
    [(dict(render="foggy"), "render"), (dict(size=(4, 64)), "16"), (dict(length=0), "length"), (dict(seed=-1), "seed")],
)
def test_dataset_rejects(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ProceduralFlowDataset(**arguments)


# Sets on disk


def write(tmp_path, layout, **changes):
    recipe = Recipe(layout, **{"scenes": 3, "frames": 3, "size": (40, 64), "textures": "analytic", **changes})
    root = tmp_path / layout
    assert write_procedural(recipe, root)
    assert detect_layout(str(root)) == layout
    return recipe, str(root)


def check_items(dataset, count, photometric=True):
    assert len(dataset) == count
    ids = set()
    for item in dataset:
        sample = item["data_samples"]
        ids.add(sample.sample_id)
        assert sample.procedural and sample.source.startswith("procedural, not ")
        if photometric:
            first, second = item["inputs"].numpy().transpose(0, 2, 3, 1)
            flow, (x, y) = sample.gt_flow.numpy(), grid(first.shape[:2])
            target = x + flow[0], y + flow[1]
            height, width = first.shape[:2]
            visible = (target[0] >= 0) & (target[1] >= 0) & (target[0] <= width - 1) & (target[1] <= height - 1)
            visible &= sample.gt_valid.numpy() > 0
            if "gt_occlusion" in sample:
                visible &= ~sample.gt_occlusion.numpy()
            assert np.median(np.abs(bilinear(second, *target) - first)[visible]) < 3
    assert len(ids) == count


@pytest.mark.parametrize("name", layout_names())
def test_layouts_name_the_readers_that_name_them(name):
    layout = get_layout(name)
    for dataset in {*layout.datasets, *(part.dataset for part in layout.parts)}:
        # A reader of two layouts, with flow of two definitions, names the one that it takes unless told otherwise.
        named = DATASETS.get(dataset).layout
        assert named == name or dataset in get_layout(named).datasets


def test_the_command_names_the_layouts_when_there_is_no_such():
    result = CliRunner().invoke(synth, ["sintell", "--root", "nowhere"])
    assert result.exit_code == 2 and "did you mean 'sintel'" in result.output
    assert all(name in result.output for name in layout_names())


def test_sintel(tmp_path):
    recipe, root = write(tmp_path, "sintel")
    check_items(SintelDataset(root, split="all"), 6)
    check_items(SintelDataset(root, split="all", render="final"), 6, photometric=False)
    assert len(SintelDataset(root, split="train")) == 4 and len(SintelDataset(root, split="val")) == 2
    assert len(SintelDataset(root, split="test", render="both")) == 4
    item = SintelDataset(root, scenes=["alley_2"])[1]["data_samples"]
    scene = recipe.scene(0, 1)
    flow, occluded = scene.flow(scene.view(2), 3)
    assert (item.gt_flow.numpy() == flow.transpose(2, 0, 1)).all()
    assert (item.gt_occlusion.numpy() == occluded).all()


def test_sintel_with_more_scenes_than_names(tmp_path):
    _, root = write(tmp_path, "sintel", scenes=25, frames=2, size=(16, 24))
    assert len(SintelDataset(root, split="train")) == 19 and len(SintelDataset(root, split="val")) == 6


def test_chairs(tmp_path):
    recipe, root = write(tmp_path, "chairs", scenes=6)
    check_items(FlyingChairsDataset(root, split="all"), 6)
    assert len(FlyingChairsDataset(root, split="train")) == 4 and len(FlyingChairsDataset(root, split="val")) == 2
    scene = recipe.scene(0, 2)
    flow = FlyingChairsDataset(root, split="all")[2]["data_samples"].gt_flow.numpy()
    assert (flow == scene.flow(scene.view(1), 2)[0].transpose(2, 0, 1)).all()


def test_things(tmp_path):
    recipe, root = write(tmp_path, "things")
    check_items(FlyingThings3DDataset(root, cameras=("left", "right")), 24)
    assert len(FlyingThings3DDataset(root, split="test", render="both")) == 8
    scene = recipe.scene(0, 0)
    past = FlyingThings3DDataset(root, directions="into_past")[0]["data_samples"]
    assert past.frame == 7
    assert (past.gt_flow.numpy() == scene.flow(scene.view(7), 6)[0].transpose(2, 0, 1)).all()
    scales = {path.read_bytes().split(b"\n")[2][:1] for path in (tmp_path / "things").rglob("*.pfm")}
    assert scales == {b"-", b"1"}


def test_things_subset(tmp_path):
    _, root = write(tmp_path, "things-subset")
    check_items(FlyingThings3DSubsetDataset(root, cameras=("left", "right")), 24)
    assert len(FlyingThings3DSubsetDataset(root, split="val", render="final")) == 4


@pytest.mark.parametrize("layout, dataset", [("kitti2015", KITTI2015Dataset), ("kitti2012", KITTI2012Dataset)])
def test_kitti(tmp_path, layout, dataset):
    recipe, root = write(tmp_path, layout, size=(48, 124))
    check_items(dataset(root), 3)
    assert len(dataset(root, split="test")) == 1
    assert len({dataset(root)[i]["data_samples"].ori_shape for i in range(3)}) == 3
    sample, scene = dataset(root)[1]["data_samples"], recipe.scene(0, 1, kitti_size((48, 124), 1))
    (flow, occluded), valid = scene.flow(scene.view(1), 2), sample.gt_valid.numpy() > 0
    assert np.abs(sample.gt_flow.numpy().transpose(1, 2, 0) - flow)[valid].max() <= 1 / 128
    assert (valid == scan_lines(scene)).all() and not valid[:19].any() and 0.15 < valid.mean() < 0.35
    assert ((sample.gt_valid_noc.numpy() > 0) == (valid & ~occluded)).all()
    assert ("gt_foreground" in sample) == (layout == "kitti2015")


def test_hd1k(tmp_path):
    _, root = write(tmp_path, "hd1k")
    check_items(HD1KDataset(root), 6)
    assert len(HD1KDataset(root, split="test")) == 2
    assert 0 < (HD1KDataset(root)[0]["data_samples"].gt_valid == 0).float().mean() < 0.3


def test_spring(tmp_path):
    recipe, root = write(tmp_path, "spring")
    check_items(SpringDataset(root, cameras=("left", "right"), directions=("FW", "BW")), 24)
    assert len(SpringDataset(root, split="test")) == 2
    sample, scene = SpringDataset(root)[0]["data_samples"], recipe.scene(0, 0)
    x, y = grid(scene.size)
    flow, _ = scene.flow(scene.view(1, (x - 0.25, y - 0.25), colours=False), 2)
    valid = sample.gt_valid.numpy() > 0
    assert 0.6 < valid.mean() < 1
    np.testing.assert_allclose(sample.gt_flow.numpy().transpose(1, 2, 0)[valid], flow[valid], atol=1e-5)


def test_writing_again(tmp_path):
    recipe, root = write(tmp_path, "chairs")
    assert json.loads((tmp_path / "chairs" / "PROCEDURAL.json").read_text())["layout"] == "chairs"
    assert not write_procedural(recipe, root)
    other = Recipe("chairs", scenes=2, size=(40, 64), textures="analytic")
    with pytest.raises(DataError, match="overwrite"):
        write_procedural(other, root)
    assert write_procedural(other, root, overwrite=True)
    assert len(FlyingChairsDataset(root, split="all")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["chairs"]


def test_foreign_folders_are_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.png").write_bytes(b"x")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="not a procedural set"):
            write_procedural(Recipe("chairs"), tmp_path / "photos", overwrite=overwrite)
    assert (tmp_path / "photos" / "holiday.png").exists()


def test_workers_write_the_same(tmp_path):
    recipe = Recipe("chairs", scenes=3, size=(32, 40), textures="analytic")
    write_procedural(recipe, tmp_path / "one")
    write_procedural(recipe, tmp_path / "two", workers=2)
    for path in sorted((tmp_path / "one").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()


def test_an_interrupted_writer_goes_on(tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    recipe, counts = Recipe("chairs", size=(32, 40), textures="analytic"), []
    with pytest.raises(KeyboardInterrupt):
        write_procedural(recipe, tmp_path / "set", progress=stop)
    assert not (tmp_path / "set").exists()
    assert write_procedural(recipe, tmp_path / "set", progress=lambda *count: counts.append(count))
    assert counts == [(done, 6) for done in range(2, 7)]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_killed_writer_leaves_no_half_set(tmp_path, workers):
    command = [sys.executable, "-c", "from ffplug.cli import main; main()", "synth", "sintel"]
    command += ["--root", str(tmp_path / "set"), "--workers", workers, "--scenes", "500", "--size", "32x40"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob(".set.partial/files/training/flow/*/*.flo")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "set").exists()
    assert (tmp_path / ".set.partial").exists()
    other = Recipe("sintel", 1, 2, (32, 40), textures="analytic")
    with pytest.raises(DataError, match="scenes: 500 there, 1 here"):
        write_procedural(other, tmp_path / "set")
    time.sleep(1.5 if workers != "0" else 0)
    assert write_procedural(other, tmp_path / "set", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(layout="sintle"), "did you mean 'sintel'"),
        (dict(layout="sintel", frames=1), "frames=1"),
        (dict(layout="sintel", size=(8, 64)), "16"),
        (dict(layout="sintel", difficulty="easy"), "difficulty"),
        (dict(layout="sintel", options=dict(fogg=1)), "did you mean 'fog'"),
    ],
)
def test_recipes_name_what_is_wrong(changes, message):
    with pytest.raises(ConfigError, match=message):
        Recipe(**changes)


def test_command(tmp_path):
    arguments = ["sintel", "--root", str(tmp_path / "set"), "--scenes", "3", "--frames", "2", "--size", "32x40"]
    result = CliRunner().invoke(synth, [*arguments, "--set", "layers=[1,2]"])
    assert result.exit_code == 0, result.output
    assert len(SintelDataset(str(tmp_path / "set"))) == 3
    marker = json.loads((tmp_path / "set" / "PROCEDURAL.json").read_text())
    assert marker["options"] == {"layers": [1, 2]} and marker["size"] == [32, 40]
    assert "nothing to do" in CliRunner().invoke(synth, [*arguments, "--set", "layers=[1,2]"]).output
    assert isinstance(CliRunner().invoke(synth, arguments).exception, DataError)
    assert "HEIGHTxWIDTH" in CliRunner().invoke(synth, [*arguments[:-1], "big"]).output


# The stand-in


def config(root):
    loader = dict(dataset=dict(type="ffplug.SintelDataset", data_root=root))
    mix = dict(dataset=dict(type="x", datasets=[loader["dataset"], dict(type="y", data_root="elsewhere")]))
    return Config(dict(train_dataloader=mix, val_dataloader=loader, prepare_data=dict(data_root=root)))


def stand_in(root, **changes):
    small = dict(scenes=3, frames=2, size=(32, 40), textures="analytic")
    return PREPARERS.build(dict(type="ffplug.ProceduralStandIn", data_root=root, **small, **changes))


def test_stand_in_writes_replaces_and_warns(tmp_path, caplog):
    root = str(tmp_path / "Sintel")
    cfg = config(root)
    assert stand_in(root)(cfg)
    new = f"{root}-procedural"
    assert cfg.val_dataloader.dataset.data_root == new
    assert [d.data_root for d in cfg.train_dataloader.dataset.datasets] == [new, "elsewhere"]
    assert cfg.prepare_data.data_root == root
    assert len(SintelDataset(new, split="val")) == 1
    stamp = os.stat(f"{new}/PROCEDURAL.json").st_mtime_ns
    assert stand_in(root)(cfg), "a dumped config, which reads the stand-in already, goes through as well"
    assert os.stat(f"{new}/PROCEDURAL.json").st_mtime_ns == stamp
    assert stand_in(root, seed=1)(config(root))
    assert os.stat(f"{new}/PROCEDURAL.json").st_mtime_ns != stamp


def run_stand_in(root: str, rank: str) -> subprocess.Popen:
    code = (
        "from mmengine.config import Config; from ffplug.registry import PREPARERS;"
        f"c = Config(dict(d=dict(data_root={root!r})));"
        f"PREPARERS.build(dict(type='ffplug.ProceduralStandIn', data_root={root!r}, scenes=3, frames=2, size=(32, 40),"
        "textures='analytic'))(c); print('reads', c.d.data_root)"
    )
    environment = dict(os.environ, LOCAL_RANK=rank)
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)


def test_stand_in_says_so_unmissably_and_other_ranks_wait_for_the_first(tmp_path):
    root = str(tmp_path / "Sintel")
    waiting = run_stand_in(root, "1")
    time.sleep(0.5)
    for process in (run_stand_in(root, "0"), waiting):
        text, _ = process.communicate(timeout=100)
        assert process.returncode == 0 and f"reads {root}-procedural" in text
        assert "THIS IS NOT MPI SINTEL" in text and f"put it at {root}" in text and "#" * 60 in text


def test_real_data_are_used(tmp_path):
    write(tmp_path, "sintel")
    root = str(tmp_path / "sintel")
    cfg = config(root)
    assert not stand_in(root)(cfg)
    assert cfg.val_dataloader.dataset.data_root == root and not (tmp_path / "sintel-procedural").exists()


def test_something_else_at_data_root_is_an_error(tmp_path):
    root = tmp_path / "Sintel"
    root.mkdir()
    (root / "MPI-Sintel-complete.zip.part").write_bytes(b"half")
    with pytest.raises(DataError, match="expected MPI Sintel"):
        stand_in(str(root))(config(str(root)))
    assert not (tmp_path / "Sintel-procedural").exists()


def test_config_that_does_not_read_data_root(tmp_path):
    with pytest.raises(ConfigError, match="prepare_data"):
        stand_in(str(tmp_path / "Sintel"))(config("data/other"))


def test_replacing_knows_equal_paths():
    cfg = Config(dict(a=dict(data_root="./data/Sintel/")))
    assert replace_data_root(cfg, "data/Sintel", "new") == 1 and cfg.a.data_root == "new"
