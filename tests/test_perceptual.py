"""LPIPS against the published package's, with weights that follow from their keys, and what is said without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

from ffplug.errors import CheckpointError, ConfigError, DataError
from ffplug.evaluation import FrameMetric, lpips, ssim
from ffplug.models.perceptual import LPIPS
from ffplug.structures import FrameDataSample
from ffplug.testing.golden import image, values

# By lpips 0.1.4 (BSD-2-Clause) for the frames below: distances, and of the sum's gradient the norm and some values.
PUBLISHED = dict(
    alex=(
        (0.08327698707580566, 0.08146438002586365),
        0.046489834785461426,
        (-0.0001709304633550346, 0.0011982641881331801, 0.00036637726589106023),
    ),
    vgg=(
        (0.10036368668079376, 0.09497775882479532),
        0.021751629188656807,
        (-0.00019103390513919294, -9.720739762997255e-05, 1.737997808959335e-05),
    ),
)
FILES = dict(
    alex=("alexnet-owt-7be5be79.pth", "lpips_alex.pth", (0, 3, 6, 8, 10)),
    vgg=("vgg16-397923af.pth", "lpips_vgg.pth", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
)
SHAPES = dict(
    alex=((64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)),
    vgg=tuple(
        (width, before, 3)
        for width, before in zip(
            (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
            (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512),
            strict=True,
        )
    ),
)
HEADS = dict(alex=(64, 192, 384, 256, 256), vgg=(64, 128, 256, 512, 512))


@pytest.fixture(scope="module")
def frames():
    """A batch of two frames 2×3×48×67 and another like them, in 0..1."""
    one = torch.nn.functional.avg_pool2d(torch.from_numpy(image(701, (2, 3, 48, 67), 0, 1)), 5, 1, 2)
    return one, 0.7 * one + 0.3 * torch.from_numpy(image(702, (2, 3, 48, 67), 0, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files in the forms of torchvision and of the LPIPS package, with values that follow from their keys."""
    folder = tmp_path_factory.mktemp("weights")
    for name, (backbone, heads, places) in FILES.items():
        shapes = {}
        for place, (width, before, side) in zip(places, SHAPES[name], strict=True):
            shapes |= {f"features.{place}.weight": (width, before, side, side), f"features.{place}.bias": (width,)}
        shapes["classifier.6.bias"] = (1000,)
        torch.save({key: torch.from_numpy(values(key, shape)) for key, shape in shapes.items()}, folder / backbone)
        linear = {f"lin{place}.model.1.weight": (1, width, 1, 1) for place, width in enumerate(HEADS[name])}
        torch.save({key: torch.from_numpy(np.abs(values(key, shape))) for key, shape in linear.items()}, folder / heads)
    return folder


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_the_published_distance(frames, folder, network):
    backbone, heads, _ = FILES[network]
    distance = LPIPS(network, folder / backbone, folder / heads)
    one, other = frames
    other = other.clone().requires_grad_()
    found = distance(one, other)
    (slope,) = torch.autograd.grad(found.sum(), other)
    distances, norm, part = PUBLISHED[network]
    assert found.tolist() == pytest.approx(distances, rel=1e-5)
    assert float(slope.norm()) == pytest.approx(norm, rel=1e-4)
    assert slope[0, 1, 20, 30:33].tolist() == pytest.approx(part, rel=1e-3)
    assert lpips(255 * one[0], 255 * frames[1][0], distance) == pytest.approx(distances[0], rel=1e-5)
    assert not any(parameter.requires_grad for parameter in distance.parameters())
    with pytest.raises(DataError, match="needs at least"):
        distance(one[..., :12, :], one[..., :12, :])


def test_equal_black_frames_have_a_slope(folder):
    backbone, heads, _ = FILES["alex"]
    distance = LPIPS("alex", folder / backbone, folder / heads)
    for layers in distance.blocks:
        layers[0].bias.zero_()
        layers[0].weight.zero_()
    black = torch.zeros(1, 3, 32, 32, requires_grad=True)
    (slope,) = torch.autograd.grad(distance(black, torch.ones(1, 3, 32, 32)).sum(), black)
    assert slope.isfinite().all()


def test_wrong_files_are_named(folder, tmp_path):
    backbone, heads, _ = FILES["alex"]
    with pytest.raises(CheckpointError, match=f"{FILES['vgg'][0]}: not AlexNet of torchvision: 13 convolutions"):
        LPIPS("alex", folder / FILES["vgg"][0], folder / heads)
    with pytest.raises(CheckpointError, match="not the heads of LPIPS for AlexNet: no lin1"):
        LPIPS("alex", folder / backbone, folder / FILES["vgg"][1])
    narrow = torch.load(folder / backbone, weights_only=True)
    narrow["features.3.weight"] = narrow["features.3.weight"][:9]
    torch.save(narrow, tmp_path / "narrow.pth")
    with pytest.raises(CheckpointError, match=r"not AlexNet of torchvision: features\.3\."):
        LPIPS("alex", tmp_path / "narrow.pth", folder / heads)
    with pytest.raises(ConfigError, match="did you mean 'alex'"):
        LPIPS("alexnet")


def test_figures_come_where_the_weights_are(frames, tmp_path, monkeypatch, caplog, request):
    logger = MMLogger.get_current_instance()  # it does not propagate to the root, where caplog listens
    logger.addHandler(caplog.handler)
    request.addfinalizer(lambda: logger.removeHandler(caplog.handler))
    monkeypatch.setenv("FFPLUG_WEIGHTS", str(tmp_path))
    levels = [255 * frame[0] for frame in frames]
    assert ssim(levels[0], levels[0]) == pytest.approx(1)
    with pytest.raises(CheckpointError, match="ffplug weights pull alexnet_imagenet"):
        lpips(*levels)
    sample = FrameDataSample(metainfo=dict(sample_id="a", dataset="set"))
    sample.pred_frame, sample.gt_frame = frames[0][0], frames[1][0]
    figures = FrameMetric(lpips="alex").measure(sample).figures
    assert set(figures) == {"PSNR", "SSIM"}
    assert "LPIPS is left out: alexnet_imagenet and lpips_alex not on this machine" in caplog.text
    with pytest.raises(ConfigError, match="network"):
        FrameMetric(lpips="squeeze")
    # Files under the released names that are not the released ones are no reason to leave the figure out.
    for name in FILES["alex"][:2]:
        (tmp_path / name).write_bytes(b"other")
    with pytest.raises(CheckpointError, match="expected 7be5be79"):
        FrameMetric(lpips="alex").measure(sample)
