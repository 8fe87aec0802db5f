"""The figures of interpolated frames against the public code's and scikit-image's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_ugsp.evaluation import InterpolationMetric, ssim_uniform, ssim_volume
from ffplug_ugsp.structures import InterpolationSample

from ffplug.errors import ConfigError
from ffplug.testing.golden import image

GOLDEN = Path(__file__).parent / "golden" / "vfi_losses" / "vfi_losses_case0.npz"


@pytest.fixture(scope="module")
def frames():
    """A batch of two frames 2×3×64×96 and another like them, in 0..1."""
    one = image(601, (2, 3, 64, 96), 0, 1)
    other = np.clip(0.8 * one + 0.2 * image(602, (2, 3, 64, 96), 0, 1), 0, 1)
    return torch.from_numpy(one), torch.from_numpy(other.astype(np.float32))


def sample(prediction, target, **metainfo):
    made = InterpolationSample(metainfo=dict(sample_id="a", dataset="set", procedural=True, **metainfo))
    made.pred_frame, made.gt_frame, made.base_frame = prediction, target, target
    return made


def test_the_published_ssim(frames):
    golden = np.load(GOLDEN)
    for quantised, name in ((False, "ssim3d_matlab"), (True, "ssim3d_quantised")):
        pairs = [(255 * one, 255 * other) for one, other in zip(*frames, strict=True)]
        if quantised:
            pairs = [tuple(map(torch.round, pair)) for pair in pairs]
        found = np.mean([ssim_volume(*pair) for pair in pairs])
        assert found == pytest.approx(float(golden[name]), rel=1e-5)


def test_the_uniform_ssim_is_that_of_scikit_image(frames):
    metrics = pytest.importorskip("skimage.metrics", exc_type=ImportError)
    one, other = (torch.round(255 * frame[0]) for frame in frames)
    arrays = [frame.permute(1, 2, 0).numpy().astype(np.uint8) for frame in (one, other)]
    expected = metrics.structural_similarity(*arrays, channel_axis=2, data_range=255)
    assert ssim_uniform(one, other) == pytest.approx(expected, abs=1e-7)


def test_the_metric_gives_psnr_and_interpolation_error(frames):
    golden = np.load(GOLDEN)
    metric = InterpolationMetric()
    records = [metric.measure(sample(one, other)).figures for one, other in zip(*frames, strict=True)]
    assert np.mean([figures["IE"] for figures in records]) == pytest.approx(float(golden["ie"]), rel=1e-5)
    together = np.mean([10 ** (-figures["PSNR"] / 10) for figures in records])
    assert -10 * np.log10(together) == pytest.approx(float(golden["psnr_quantised"]), rel=1e-5)
    root = np.mean([figures["IE_rms"] ** 2 for figures in records]) ** 0.5
    assert 20 * np.log10(255 / root) == pytest.approx(float(golden["psnr_quantised"]), rel=1e-5)
    assert records[0]["SSIM_volume_base"] == 1 and records[0]["IE_base"] == 0
    assert set(InterpolationMetric("IE").measure(sample(*(frame[0] for frame in frames))).figures) >= {"IE", "IE_base"}
    with pytest.raises(ConfigError, match="did you mean 'IE"):
        InterpolationMetric("IEE")


def test_only_the_frame_on_its_canvas_counts(frames):
    one, other = frames[0][0], frames[1][0]
    padded = [torch.nn.functional.pad(frame, (0, 9, 0, 5)) for frame in (one, other)]
    padded[0][:, 64:] = 1
    metric = InterpolationMetric()
    assert metric.measure(sample(*padded, ori_shape=(64, 96))).figures == metric.measure(sample(one, other)).figures
    metric.results = [metric.measure(sample(*padded, ori_shape=(64, 96), kind="easy"))]
    logged = metric.evaluate(1)
    assert logged["set/frames"] == 1 and logged["set/easy/IE"] == logged["set/IE"]
