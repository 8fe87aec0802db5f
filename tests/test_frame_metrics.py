"""Figures of produced frames against published code's, and the metric of a run."""

import json
import math

import numpy as np
import pytest
import torch

from ffplug.errors import ConfigError, DataError
from ffplug.evaluation import FrameMetric, as_levels, psnr, squared_error, ssim_map
from ffplug.structures import FrameDataSample
from ffplug.testing.golden import image

# From the code of STSS (github.com/ryanhe312/STSSNet-AAAI2024) for the frames below.
PUBLISHED = dict(
    psnr_y=28.314545124885754,
    ssim_y=0.817907074211688,
    psnr_y_masked=28.357360650249515,
    psnr_rgb=23.42386628226118,
    ssim_rgb=0.826585921676362,
    psnr_rgb_masked=23.32710040316838,
    ssim_rgb_masked=0.823769218052454,
)


@pytest.fixture(scope="module")
def frames():
    target = np.kron(image(500, (8, 12, 3), 0, 1), np.ones((8, 8, 1)))
    prediction = target + image(501, (64, 96, 3), -0.12, 0.12)
    mask = torch.from_numpy(image(502, (64, 96), 0, 1) > 0.7).float()
    return *(torch.from_numpy(frame.transpose(2, 0, 1).copy()) for frame in (prediction, target)), mask


def sample_of(frames, name="a/1", **meta):
    prediction, target, mask = frames
    sample = FrameDataSample(metainfo=dict(sample_id=name, dataset="A/x", **meta))
    sample.pred_frame, sample.gt_frame = prediction, target
    sample.base_frame, sample.region_hole = target.flip(2), mask
    return sample


@pytest.mark.parametrize("colour", ["y", "rgb"])
def test_figures_are_the_published_ones(frames, colour):
    figures = FrameMetric(quantise="truncate", colour=colour).measure(sample_of(frames)).figures
    found = {f"psnr_{colour}": "PSNR", f"ssim_{colour}": "SSIM", f"psnr_{colour}_masked": "PSNR_hole"}
    if colour == "rgb":  # for luma the published code leaves the mask out
        found["ssim_rgb_masked"] = "SSIM_hole"
    for name, key in found.items():
        assert figures[key] == pytest.approx(PUBLISHED[name], abs=1e-6), name


def test_exact_values():
    target = torch.full((3, 12, 12), 0.5)
    levels, other = as_levels(target, "none"), as_levels(target + 0.1, "none")
    assert psnr(squared_error(levels, other)) == pytest.approx(20)
    assert psnr(squared_error(levels, levels)) > 140
    assert float(ssim_map(levels, levels).mean()) == pytest.approx(1)
    assert squared_error(levels, other, torch.zeros(12, 12)) is None
    assert as_levels(torch.tensor([1.7, -1.0, 0.999]).view(3, 1, 1), "truncate").flatten().tolist() == [255, 0, 254]
    with pytest.raises(DataError, match="at least 11×11"):
        ssim_map(levels[:, :8], levels[:, :8])


def test_a_run_tells_kinds_apart_and_counts_a_frame_once(frames, tmp_path):
    metric = FrameMetric(out_file=tmp_path / "frames.json")
    equal = (frames[1], frames[1], torch.zeros(64, 96))
    samples = [
        sample_of(frames, "a/1", kind="EF"),
        sample_of(frames, "a/1", kind="EF"),
        sample_of(equal, "a/2", kind="SF"),
    ]
    metric.process(None, samples)
    figures = metric.evaluate(2)
    assert figures["a_x/frames"] == 2 and figures["a_x/EF/frames"] == 1
    assert figures["a_x/PSNR"] == pytest.approx((figures["a_x/EF/PSNR"] + figures["a_x/SF/PSNR"]) / 2)
    assert figures["a_x/PSNR_hole"] == figures["a_x/EF/PSNR_hole"] and "a_x/SF/PSNR_hole" not in figures
    assert figures["a_x/EF/PSNR_base"] < figures["a_x/EF/PSNR"] and math.isfinite(figures["a_x/EF/SSIM_base"])
    assert set(json.loads((tmp_path / "frames.json").read_text())) == {"A/x/a/1", "A/x/a/2"}


def test_what_is_refused(frames):
    with pytest.raises(ConfigError, match="quantise='floor'"):
        FrameMetric(quantise="floor")
    sample = sample_of(frames)
    sample.pred_frame = sample.pred_frame[:, 1:]
    with pytest.raises(DataError, match="a/1: frames of different sizes"):
        FrameMetric().measure(sample)
    del sample.pred_frame
    with pytest.raises(DataError, match="a/1: the sample has no pred_frame"):
        FrameMetric().measure(sample)
