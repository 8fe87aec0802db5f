"""Procedural portraits: what is drawn follows from the seed, and the pictures show it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ffplug_face.portraits import (
    ACTION_UNITS,
    EXPRESSIONS,
    PortraitOptions,
    Portraits,
    draw_portraits,
    render_portraits,
)
from ffplug_face.portraits.videos import FaceVideoDataset, read_truth
from ffplug_face.rendering.depth_map import DepthCamera, depth_normals, rasterize_depth_map

from ffplug.datasets.procedural import Recipe
from ffplug.datasets.procedural.writers import write_procedural
from ffplug.datasets.seeding import SeededIndex
from ffplug.errors import ConfigError, DataError


def test_portraits_follow_from_their_numbers() -> None:
    first, again = draw_portraits(3, 5, 4), draw_portraits(3, 5, 4)
    for name, value in first.arrays().items():
        assert np.array_equal(value, again.arrays()[name]), name
    other = draw_portraits(3, 5, 4, video=1)
    assert np.array_equal(first.identity, other.identity)
    assert not np.array_equal(first.view, other.view)
    assert not np.array_equal(first.identity, draw_portraits(3, 6, 4).identity)
    pictures = render_portraits(first, 32)
    assert torch.equal(pictures.images[2:3], render_portraits(again[2], 32).images)


def test_expressions_show_their_action_units_and_affect() -> None:
    faces = Portraits.joined([draw_portraits(0, person, 40) for person in range(5)])
    happy = faces[faces.expression == EXPRESSIONS.index("happiness")]
    assert happy.action_units[:, ACTION_UNITS.index(12)].min() > 0.2
    assert happy.affect[:, 0].min() > 0.2
    neutral = faces[faces.expression == EXPRESSIONS.index("neutral")]
    assert neutral.action_units.max() <= 0.25
    assert np.abs(neutral.affect).max() < 0.15
    assert set(faces.expression) == set(range(7))


def test_backgrounds_are_the_same_on_demand() -> None:
    faces = Portraits.joined([draw_portraits(0, k, 3, options=PortraitOptions(background="same")) for k in range(2)])
    assert not faces.noisy.any()
    corners = render_portraits(faces, 32).images[:, :, 0, 0]
    assert torch.equal(corners, corners[:1].expand_as(corners))
    other = draw_portraits(0, 0, 3, options=PortraitOptions(background="plain"))
    assert np.array_equal(other.view, faces.view[:3]) and len(set(other.background)) == 3
    with pytest.raises(ConfigError, match="same"):
        PortraitOptions(background="one")


def test_a_video_moves_smoothly() -> None:
    options = PortraitOptions(every=10)
    faces = draw_portraits(0, 0, 31, options=options)
    steps = np.abs(np.diff(faces.view[:, 1]))
    ends = np.abs(np.diff(faces.view[::10, 1]))
    assert steps.max() < 0.2 * ends.max() + 1e-6
    assert len(set(faces.background)) == 1


@pytest.mark.parametrize(
    ("unit", "place"),
    [(1, (slice(14, 26), slice(20, 44))), (12, (slice(29, 50), slice(14, 50))), (26, (slice(34, 62), slice(10, 54)))],
)
def test_an_action_unit_changes_its_part_of_the_face(unit: int, place: tuple[slice, slice]) -> None:
    faces = draw_portraits(0, 1, 1, options=PortraitOptions(background="plain"))
    faces = faces.replaced(view=np.zeros((1, 6), np.float32), action_units=np.zeros((1, 12), np.float32))
    units = np.zeros((1, 12), np.float32)
    units[0, ACTION_UNITS.index(unit)] = 1
    rest, moved = (render_portraits(each, 64).images[0].float() for each in (faces, faces.replaced(action_units=units)))
    change = (rest - moved).abs().mean(0)
    assert change[place].sum() > 0.8 * change.sum() > 0
    assert change[place].mean() > 1


def test_the_depth_of_the_picture_is_that_of_the_turned_map() -> None:
    faces = draw_portraits(0, 2, 3)
    pictures = render_portraits(faces, 48)
    shown = pictures.image_depth[pictures.image_mask]
    assert float(shown.min()) > 0.9 and float(shown.max()) < 1.1
    assert bool((pictures.image_depth[~pictures.image_mask] == 1.2).all())
    still = render_portraits(faces.replaced(view=np.zeros((3, 6), np.float32)), 48)
    inside = still.image_mask & still.mask
    assert inside.float().mean() > 0.3
    assert torch.allclose(still.image_depth[inside], still.depth[inside], atol=1e-5)


def test_a_turn_is_undone_by_the_turn_back_and_planes_have_their_normal() -> None:
    camera = DepthCamera(9)
    generator = torch.Generator().manual_seed(0)
    view = 0.3 * torch.randn(2, 6, generator=generator, dtype=torch.float64)
    points = camera.back_project(1 + 0.05 * torch.rand(2, 9, 9, generator=generator, dtype=torch.float64))
    assert torch.allclose(camera.turn_back(camera.turn(points, view), view), points, atol=1e-12)
    flat = camera.back_project(torch.ones(1, 9, 9, dtype=torch.float64))
    expected = torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(1, 9, 9, 3)
    assert torch.allclose(depth_normals(flat), expected, atol=1e-4)  # 1e-7 is added to a length of 0.002


def test_gradients_of_a_depth_map_are_those_of_finite_differences() -> None:
    camera = DepthCamera(8)
    generator = torch.Generator().manual_seed(1)
    depth = (1 + 0.01 * torch.rand(1, 8, 8, generator=generator, dtype=torch.float64)).requires_grad_()
    view = torch.tensor([[0.1, 0.2, 0.05, 0.002, -0.003, 0.01]], dtype=torch.float64, requires_grad=True)
    colours = torch.rand(1, 2, 8, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(1, 3, 8, 8, generator=generator, dtype=torch.float64)

    def render(depth: torch.Tensor, view: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
        shown, _, carried = rasterize_depth_map(camera, depth, view, colours)
        return (torch.cat((shown[:, None], carried), 1) * weights).sum()

    assert torch.autograd.gradcheck(render, (depth, view, colours), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(expressions=("happyness",)), "happiness"),
        (dict(intensity=(0.9, 0.1)), "intensity"),
        (dict(every=0), "every"),
        (dict(pitch_yaw_roll=(0, 2, 0)), "pitch_yaw_roll"),
        (dict(background="beach"), "background"),
        (dict(yaw=1), "yaw"),
    ],
)
def test_options_out_of_range_are_named(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PortraitOptions.of(options)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("videos") / "set"
    write_procedural(Recipe("voxceleb", scenes=3, frames=5, size=(32, 32), textures="analytic"), root)
    return str(root)


def test_videos_are_read_back_with_their_truth(videos: str) -> None:
    dataset = FaceVideoDataset(
        videos, min_frames=5, pipeline=[dict(type="ffplug_face.LoadFaceFrames", frames=5, size=32)]
    )
    assert len(dataset) == 3 and dataset.metainfo["procedural"]
    item = dataset[1]
    portraits, maps = read_truth(f"{videos}/truth/train/id00002/00001.npz")
    assert torch.equal(item["inputs"], render_portraits(portraits, 32).images)
    assert maps["depth"].shape == (5, 32, 32)
    assert item["data_samples"].person == "id00002"
    drawn = [dataset[SeededIndex(1, draw)]["inputs"] for draw in (7, 7, 8)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    validation = FaceVideoDataset(videos, "val", min_frames=5)
    assert [validation.get_data_info(k)["person"] for k in range(len(validation))] == ["id00004"]


def test_folders_that_do_not_fit_are_named(videos: str, tmp_path) -> None:
    with pytest.raises(DataError, match=r"16|no videos"):
        FaceVideoDataset(videos)
    with pytest.raises(DataError, match="no such folder"):
        FaceVideoDataset(str(tmp_path / "nothing"))
