from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
import torch

from ffplug.errors import DataError
from ffplug.evaluation import epe_map
from ffplug.registry import VISUALIZERS
from ffplug.structures import FlowDataSample
from ffplug.visualization import (
    colour_wheel,
    colour_wheel_legend,
    draw_arrows,
    error_map,
    flow_norm,
    flow_to_image,
    panel,
    text_image,
    write_video,
)


@pytest.fixture
def flow():
    return np.random.default_rng(0).normal(0, 5, (31, 43, 2)).astype(np.float32)


def test_wheel_equals_torchvisions(flow):
    vision = pytest.importorskip("torchvision.utils")
    tensor = torch.from_numpy(flow.transpose(2, 0, 1).copy())
    expected = vision.flow_to_image(tensor).numpy().transpose(1, 2, 0).astype(int)
    for given in (flow, tensor):
        # torchvision computes in float32: the floor may fall on the other side of a whole number.
        difference = np.abs(flow_to_image(given).astype(int) - expected)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_wheel_has_the_published_hues():
    wheel = colour_wheel()
    assert wheel.shape == (55, 3)
    assert wheel[[0, 15, 21, 25, 36, 49]].tolist() == [
        [255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255],
    ]  # fmt: skip


def test_direction_gives_hue_and_speed_saturation():
    picture = flow_to_image(np.array([[[1, 0], [0.5, 0], [0, 0], [2, 0], [np.nan, 0]]], np.float32), max_norm=1.0)[0]
    assert picture[0][0] == 255 and picture[0][1:].max() <= 1
    assert picture[1][0] == 255 and abs(int(picture[1][1]) - 127) <= 1
    assert picture[2].tolist() == [255, 255, 255]
    assert picture[3].tolist() == [191, 0, 0]
    assert picture[4].tolist() == [0, 0, 0]
    assert flow_to_image(np.ones((2, 2, 2)), valid=np.array([[1, 0], [1, 1]]))[0, 1].tolist() == [0, 0, 0]


def test_zero_flow_and_flow_without_a_finite_pixel():
    assert (flow_to_image(np.zeros((3, 4, 2))) == 255).all()
    assert (flow_to_image(np.full((3, 4, 2), np.nan)) == 0).all()
    assert flow_norm(np.full((3, 4, 2), np.nan)) == 0
    with pytest.raises(DataError, match="H×W×2"):
        flow_to_image(np.zeros((2, 3, 4)))


def test_legend_shows_the_colour_of_each_direction():
    legend = colour_wheel_legend(101)
    assert legend.shape == (101, 101, 3) and (legend[0, 0] == 255).all() and (legend[50, 50] >= 250).all()
    assert legend[50, 98, 0] == 255 and legend[50, 98, 1] < 20  # right is red


def test_arrows_point_along_the_flow():
    image = np.full((64, 64, 3), 120, np.uint8)
    flow = np.zeros((64, 64, 2), np.float32)
    flow[32, 32] = (20, 0)
    flow[0, 0] = np.nan
    drawn = draw_arrows(image, flow, step=64, colour=(255, 0, 0))
    assert (image == 120).all()
    changed = np.argwhere((drawn != 120).any(axis=2))
    assert changed[:, 1].min() >= 30 and 50 <= changed[:, 1].max() <= 54
    assert draw_arrows(image[:1, :1], np.ones((1, 1, 2)), step=16).shape == (1, 1, 3)


def test_error_map_orders_errors_and_greys_unknown_pixels():
    error = np.tile(np.linspace(0, 10, 200), (120, 1))
    error[0, 0] = np.nan
    error[0, 1] = np.inf
    picture = error_map(error, max_error=10, bar=False)
    assert picture[0, 0].tolist() == [128, 128, 128]
    assert np.array_equal(picture[0, 1], picture[5, -1])
    brightness = picture[5].astype(int).sum(axis=1)
    assert (np.diff(brightness) >= -2).all() and brightness[-1] > brightness[0] + 300
    with_bar = error_map(error, max_error=10)
    assert with_bar.shape[0] > 120 and np.array_equal(with_bar[:120], picture)
    assert error_map(np.full((5, 5), np.nan)).shape[1:] == (5, 3)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (60, 200)])
def test_panel_of_any_size(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    gt, pred = rng.normal(size=(2, *size, 2)).astype(np.float32)
    assert panel(image).dtype == np.uint8
    assert panel(image, image, pred=pred, arrows=True).shape[2] == 3
    full = panel(image, image, gt, pred, np.zeros(size), title="pair ✓", source="Sintel")
    tensors = panel(
        torch.from_numpy(image).permute(2, 0, 1),
        torch.from_numpy(image).permute(2, 0, 1),
        torch.from_numpy(gt).permute(2, 0, 1),
        torch.from_numpy(pred).permute(2, 0, 1),
        torch.zeros(size),
        title="pair ✓",
        source="Sintel",
    )
    assert np.array_equal(full, tensors)


def find(canvas, label):
    """Tell whether a rendered text (on white paper) is somewhere in the canvas."""
    alpha = label[..., 3:] / 255.0
    template = np.round(alpha * label[..., :3] + (1 - alpha) * 255).astype(np.uint8)
    return cv2.matchTemplate(canvas, template, cv2.TM_CCOEFF_NORMED).max() > 0.999


def test_panel_captions_say_procedural_and_give_the_figures(flow):
    image = np.zeros((*flow.shape[:2], 3), np.uint8)
    pred = flow + np.array([3, 4])
    source = FlowDataSample(metainfo=dict(dataset="Sintel/clean", procedural=True)).source
    canvas = panel(image, image, flow, pred, title="alley_1", source=source)
    assert find(canvas, text_image("procedural, not Sintel/clean", 14, (190, 30, 20)))
    assert find(canvas, text_image("EPE 5.000 px", 15))
    assert find(canvas, text_image("end-point error", 14))
    assert not find(panel(image, image, flow, pred, source="Sintel/clean"), text_image("procedural", 14, (190, 30, 20)))
    assert epe_map(pred, flow) == pytest.approx(5)


def test_visualizer_writes_files_and_back_ends(tmp_path, flow):
    visualizer = VISUALIZERS.build(
        dict(
            type="ffplug.FlowVisualizer",
            name="written",
            save_dir=str(tmp_path),
            vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")],
        )
    )
    tensor = torch.from_numpy(flow).permute(2, 0, 1)
    sample = FlowDataSample(gt_flow=tensor, pred_flow=tensor + 1, metainfo=dict(sample_id="a/b", dataset="X"))
    images = torch.randint(0, 255, (2, 3, *flow.shape[:2]), dtype=torch.uint8)
    drawn = visualizer.add_datasample("pair", images, sample, out_file=tmp_path / "deep" / "a.png", step=3)
    visualizer.add_datasample("pair", images, sample, step=4)
    visualizer.close()
    assert np.array_equal(cv2.imread(str(tmp_path / "deep" / "a.png"))[..., ::-1], drawn)
    assert [p.name for p in (tmp_path / "vis_data" / "vis_image").iterdir()] == ["pair_4.png"]
    events = [p for p in (tmp_path / "vis_data").iterdir() if "tfevents" in p.name]
    assert events and events[0].stat().st_size > 10_000


def test_video_of_a_folder_in_natural_order(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in (1, 2, 10):
        cv2.imwrite(str(folder / f"f{i}.png"), np.full((33, 47, 3), 20 * i, np.uint8))
    (folder / "notes.txt").write_text("no picture")
    path = write_video(folder, tmp_path / "out" / "film.mp4", fps=5)
    with av.open(str(path)) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert film.streams.video[0].average_rate == 5
    assert [frame.shape for frame in frames] == [(34, 48, 3)] * 3
    assert [round(frame.mean()) for frame in frames] == pytest.approx([20, 40, 200], abs=4)


def test_video_of_nothing_or_of_a_damaged_picture(tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        write_video(tmp_path, tmp_path / "a.mp4")
    with pytest.raises(DataError, match="no such folder"):
        write_video(tmp_path / "none", tmp_path / "a.mp4")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG cut")
    with pytest.raises(DataError, match=r"bad\.png"):
        write_video(tmp_path, tmp_path / "a.mp4")


def test_further_flows_of_a_sample_are_drawn_in_the_scale_of_the_main_one(flow):
    sample = FlowDataSample(metainfo={"sample_id": "face"})
    shown = torch.from_numpy(flow.transpose(2, 0, 1).copy())
    sample.gt_flow, sample.pred_flow = shown, shown
    image = np.zeros((31, 43, 3), np.uint8)
    visualizer = VISUALIZERS.build(dict(type="ffplug.FlowVisualizer", name="further", tile_width=43))
    before = visualizer.draw([image, image], sample)
    sample.set_field(0.25 * shown, "gt_head_flow")
    sample.set_field(0.5 * shown, "pred_head_flow")
    drawn = visualizer.draw([image, image], sample)
    assert drawn.shape[0] > before.shape[0]
    scale = flow_norm(flow)
    for share in (0.25, 0.5):
        picture = cv2.resize(flow_to_image(share * flow, scale), (43, 48), interpolation=cv2.INTER_NEAREST)
        assert contains(drawn, picture) and not contains(before, picture)
    without = visualizer.draw([image, image], sample, draw_gt=False)
    assert not contains(without, cv2.resize(flow_to_image(0.25 * flow, scale), (43, 48), interpolation=0))


def contains(canvas, picture):
    """Whether a picture is a part of the canvas, to the pixel."""
    found = cv2.matchTemplate(canvas, picture, cv2.TM_SQDIFF)
    y, x = np.unravel_index(found.argmin(), found.shape)
    return np.array_equal(canvas[y : y + picture.shape[0], x : x + picture.shape[1]], picture)
