"""Losses, warping and Gumbel masks against the published ones; uncertainty labels; schedules."""

import numpy as np
import pytest
import torch
from ffplug_ugsp import losses
from ffplug_ugsp.engine import PiecewiseHook
from ffplug_ugsp.labels import FILES, label, thresholds, write_labels
from ffplug_ugsp.models import UGSPNet
from ffplug_ugsp.models.layers import warp
from ffplug_ugsp.structures import InterpolationSample

from ffplug import build_model
from ffplug.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def known(golden):
    return golden("vfi_losses/vfi_losses_case0.npz")


@pytest.fixture(scope="module")
def pair(drawn):
    a, more = drawn(601, (2, 3, 64, 96)), drawn(602, (2, 3, 64, 96))
    return a, (0.8 * a + 0.2 * more).clamp(0, 1)


def test_distances(known, pair, drawn):
    flow, flow2 = drawn(603, (2, 2, 64, 96), -6, 6), drawn(604, (2, 2, 64, 96), -6, 6)
    features = [drawn(seed, (2, 16, 16, 24), -1, 1) for seed in (605, 606)]
    grey = [frame.mean(dim=1, keepdim=True) for frame in pair]
    trust = losses.robustness(flow, flow2)
    torch.testing.assert_close(trust, known["robust_weight"], atol=2e-5, rtol=0)
    found = {
        "lap5": losses.laplacian_distance(*pair),
        "lap3": losses.laplacian_distance(*pair, levels=3),
        "ternary7_ifrnet": losses.census_distance(*grey, 7),
        "geometry3_img": losses.census_distance(*pair, 3),
        "geometry3_feat": losses.census_distance(*features, 3),
        "charbonnier_l1": losses.CharbonnierLoss()({"frame": pair[0]}, pair[1], [])["loss_charbonnier"],
        "charbonnier_ada": losses.adaptive_charbonnier(flow - flow2, trust),
        "udl_step1": losses.uncertainty_distance(*pair, drawn(607, (2, 3, 64, 96), -1, 2)),
    }
    for name, value in found.items():
        torch.testing.assert_close(value.double(), known[name].double().reshape(()), rtol=1e-5, atol=0, msg=name)
    torch.testing.assert_close(warp(pair[0], flow), known["warp_f64"].float(), atol=2e-5, rtol=0)


def test_laplacian_is_blind_to_an_offset_and_refuses_other_sizes(pair):
    assert losses.laplacian_distance(pair[0], pair[0] + 0.25) < 1e-6
    with pytest.raises(DataError, match="multiples of 32"):
        losses.laplacian_distance(pair[0][..., :80], pair[1][..., :80])


@pytest.mark.parametrize("temperature", [1, 0.4, 0.01])
def test_soft_and_straight_masks(known, drawn, temperature):
    network = UGSPNet((2, 2, 2, 2), (1, 1, 1, 1)).train()
    logits, network.noise = (
        drawn(608, (2, 2, 64, 96), -2, 2).requires_grad_(),
        [drawn(609, (2, 2, 64, 96), 1e-4, 1 - 1e-4)],
    )
    network.temperature = temperature
    soft = network._mask(logits, None, 0)
    tolerance = dict(atol=1e-3 if temperature == 0.01 else 2e-5, rtol=0)
    torch.testing.assert_close(soft, known[f"gumbel_tau{temperature}"][:, :1], **tolerance)
    network.mask_mode = "straight"
    hard = network._mask(logits, None, 0)
    assert torch.equal(hard.round(), (soft > 0.5).float()) and (hard - hard.round()).abs().max() < 1e-6
    weight = torch.linspace(0, 1, hard.numel()).view(hard.shape)
    gradients = [torch.autograd.grad((mask * weight).sum(), logits, retain_graph=True)[0] for mask in (soft, hard)]
    torch.testing.assert_close(*gradients)
    network.mask_mode = "certain"
    certain = network._mask(logits, None, 0)
    assert torch.equal(certain.round().bool(), known["hard_mask"].bool())
    assert torch.autograd.grad((certain * weight).sum(), logits)[0].abs().sum() > 0
    assert torch.equal(network.eval()._mask(logits, None, 0).bool(), known["hard_mask"].bool())


def test_labels_keep_a_share_of_the_data_set(tmp_path, drawn):
    import cv2

    # The second frame is twice as uncertain, so it keeps more than the first.
    maps = [drawn(1, (1, 3, 32, 64), -1, 1), drawn(2, (1, 3, 32, 64), -1, 3)]
    found = thresholds(iter(maps), (0.7, 0.45, 0.25))
    labels = [label(one, found) for one in maps]
    shares = torch.stack(labels).mean(dim=(0, 1, 3, 4))
    torch.testing.assert_close(shares, torch.tensor([0.7, 0.45, 0.25]), atol=0.01, rtol=0)
    assert (labels[1].mean(dim=(0, 2, 3)) > labels[0].mean(dim=(0, 2, 3))).all()
    write_labels(labels[0][0], tmp_path / "00001" / "0001")
    for name, plane in zip(FILES, labels[0][0], strict=True):
        picture = cv2.imread(str(tmp_path / "00001" / "0001" / name), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(picture, 255 * plane.numpy())
    with pytest.raises(ConfigError, match="three shares"):
        thresholds(maps, (0.5, 2.0, 0.1))


def test_uncertainty_rises_where_errors_are(drawn):
    """The first phase: errors of a known scale, learned by gradient."""
    network = dict(type="ffplug_ugsp.UncertaintyNet", widths=(4, 4, 4, 4), depths=(1, 1, 1, 1))
    loss = dict(type="ffplug_ugsp.UncertaintyLoss")
    model = build_model(dict(type="ffplug_ugsp.FrameInterpolator", network=network, losses=[loss]))
    frames, sample = drawn(1, (1, 2, 3, 32, 64)), InterpolationSample(metainfo=dict(sample_id="one"))
    sample.gt_frame = frames[0].mean(dim=0)
    terms = model.train()(frames, [sample], mode="loss")
    terms["loss_uncertainty"].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    maps = model.network.eval().uncertainty(frames[:, 0], frames[:, 1])
    assert maps.shape == (1, 3, 32, 64) and bool((maps > -1).all())


def test_uncertainty_tells_grey_levels_apart():
    """Above the floor of -1 the loss must be least at log(e / 2), for errors of a few grey levels."""
    target = torch.rand(1, 3, 32, 32)
    for error in (2.0, 10.0, 60.0):
        scale = torch.full((1, 3, 32, 32), np.log(error / 2)).requires_grad_()
        outputs = dict(frames=[target + error / 255], uncertainties=[scale])
        loss = losses.UncertaintyLoss()(outputs, target, [])["loss_uncertainty"]
        assert torch.autograd.grad(loss, scale)[0].abs().sum() < 1e-4 and scale.min() > -1


def test_schedules():
    model = build_model(
        dict(
            type="ffplug_ugsp.FrameInterpolator",
            network=dict(type="ffplug_ugsp.UGSPNet", widths=(2, 2, 2, 2), depths=(1, 1, 1, 1)),
            losses=[dict(type="ffplug_ugsp.LabelLoss")],
        )
    )
    schedules = {
        "network.temperature": [(0, 1.0), (60, 0.4)],
        "network.mask_mode": [(0, "soft"), (50, "straight")],
        "losses.0.scale": [(10, 0.0), (20, 0.1)],
    }
    hook = PiecewiseHook(schedules)
    for step, temperature, mode, factor in (
        (0, 1.0, "soft", 0.0),
        (15, 0.85, "soft", 0.05),
        (99, 0.4, "straight", 0.1),
    ):
        hook.apply(model, step)
        assert model.network.temperature == pytest.approx(temperature) and model.network.mask_mode == mode
        assert model.losses[0].scale == pytest.approx(factor)
    with pytest.raises(ConfigError, match="rising order"):
        PiecewiseHook({"network.temperature": [(5, 1.0), (0, 0.4)]})
    with pytest.raises(ConfigError, match="no such attribute"):
        PiecewiseHook({"network.temprature": [(0, 1.0)]}).apply(model, 0)


def test_multiply_adds_as_published():
    with torch.device("meta"):
        network = UGSPNet()
    size = (256, 448)
    assert network.multiply_adds(*size) / 1e9 == pytest.approx(30.64, abs=0.01)
    assert network.multiply_adds(*size, published=True) / 1e9 == pytest.approx(31.74, abs=0.03)
    assert network.multiply_adds(*size, (0.7, 0.45, 0.245), published=True) / 1e9 == pytest.approx(14.70, abs=0.02)
