"""UGSP at golden parity, training mode included, and its sparse execution."""

import numpy as np
import pytest
import torch
from ffplug_ugsp.structures import InterpolationSample

from ffplug import build_model
from ffplug.errors import ConfigError, DataError
from ffplug.models.layers import fixed_weights
from ffplug.ops import use_backend

CLOSE = dict(atol=5e-5, rtol=0)
HALF = torch.tensor([0.5])


def scale(state):
    for block, bias in (("glblock_first", 1.0), ("glblock_1", 0.6), ("glblock_2", 0.15)):
        state[f"{block}.conv_mask.weight"] *= 4
        state[f"{block}.conv_mask.bias"][0] += bias


@pytest.fixture(scope="module")
def network(published):
    return published("ugsp", "ugsp/ugsp_keys.json", scale)


@pytest.fixture(scope="module")
def refined(published):
    return published("ugsp_refine", "ugsp/ugsp_refine_keys.json", scale)


@pytest.fixture(scope="module")
def frames(drawn):
    """First, second and true frame; the published network saw their channels the other way round."""
    return [drawn(seed, (1, 3, 64, 96)).flip(1) for seed in (101, 102, 103)]


@torch.no_grad()
def test_levels_and_masks(network, frames, golden):
    expected = golden("ugsp/ugsp_case0_eval.npz")
    found = network.eval().outputs(*frames[:2], HALF)
    torch.testing.assert_close(found["frame"].flip(1), expected["pred"], **CLOSE)
    torch.testing.assert_close(found["blend"], expected["blend_mask"], **CLOSE)
    for level, flow in enumerate(found["flows"], start=1):
        torch.testing.assert_close(flow, expected[f"flow_{level}"], **CLOSE)
    for size, mask, logits in zip((8, 4, 2), found["masks"], found["logits"], strict=True):
        assert torch.equal(mask, expected[f"P{size}"])
        torch.testing.assert_close(logits, expected[f"mask_logits_{2 * size}"], **CLOSE)
    torch.testing.assert_close(found["activity"].double(), expected["sparsity"].double(), rtol=1e-5, atol=0)


def _train(model, network, frames, golden_case, uniform):
    """The loss terms of the published step by name."""
    network.train()
    network.temperature, network.noise = 0.7, uniform
    sample = InterpolationSample()
    sample.gt_labels = torch.from_numpy(np.random.RandomState(301).uniform(0, 1, (1, 3, 64, 96)) > 0.5).float()[0]
    outputs = network.outputs(*frames[:2], HALF, frames[2])
    terms = {}
    for loss in model.losses:
        terms.update(loss(outputs, frames[2], [sample]))
    network.noise = None
    return outputs, terms


@pytest.fixture(scope="module")
def uniform():
    sizes = ((8, 12), (16, 24), (32, 48))
    noise = [np.random.RandomState(201 + k).uniform(0, 1, (1, 2, *size)) for k, size in enumerate(sizes)]
    return [torch.from_numpy(np.clip(array, 1e-6, 1 - 1e-6).astype(np.float32)) for array in noise]


def check_terms(terms, expected, names):
    for name, (theirs, factor) in names.items():
        value = terms[name].detach().double()
        torch.testing.assert_close(value, factor * expected[theirs].double().reshape(()), rtol=1e-5, atol=1e-9)


def test_training_step(network, frames, golden, uniform):
    expected = golden("ugsp/ugsp_case0_train.npz")
    outputs, terms = _train(build_model("ugsp"), network, frames, expected, uniform)
    torch.testing.assert_close(outputs["frame"].detach().flip(1), expected["train_pred"], **CLOSE)
    torch.testing.assert_close(outputs["auxiliary_frame"].detach().flip(1), expected["train_pred_c"], **CLOSE)
    for size, mask in zip((8, 4, 2), outputs["masks"], strict=True):
        torch.testing.assert_close(mask.detach(), expected[f"train_P{size}"], **CLOSE)
    names = {
        "loss_laplacian_frame": ("loss_lap", 1),
        "loss_laplacian_auxiliary_frame": ("loss_lap_aux", 0.5),
        "loss_geometry_auxiliary_features": ("loss_contrast", 0.001),
        "loss_label": ("loss_mask_label", 0.05),
        "activity": ("sparsity", 1),
    }
    check_terms(terms, expected, names)
    total = sum(value for name, value in terms.items() if "loss" in name)
    torch.testing.assert_close(total.detach().double(), expected["total"].double(), rtol=1e-5, atol=0)
    network.zero_grad()
    total.backward()
    ours = {
        "glblock_first.conv_mask.weight": network.blocks[0].keep.weight,
        "glblock_1.conv_mask.bias": network.blocks[1].keep.bias,
        "glblock_2.conv_mask.weight": network.blocks[2].keep.weight,
        "glblock_2.conv_last.bias": network.blocks[2].last.bias,
        "glblock_final.prelu_l.0.weight": network.blocks[3].layers[0].slope,
    }
    for name, parameter in ours.items():
        wanted = expected[f"grad:{name}"]
        torch.testing.assert_close(parameter.grad, wanted, atol=3e-4 * float(wanted.abs().max()), rtol=0)
    turned = network.encoder.stages[0][0].weight.grad.flip(1)
    wanted = expected["grad:context.pyramid1.0.0.weight"]
    torch.testing.assert_close(turned, wanted, atol=3e-4 * float(wanted.abs().max()), rtol=0)
    norm = torch.stack([p.grad.double().norm() for p in network.parameters()]).norm()
    torch.testing.assert_close(norm, expected["grad_norm_all"].double(), rtol=1e-4, atol=0)
    network.eval()


def test_refined_frames_and_terms(refined, frames, golden, uniform):
    expected = golden("ugsp/ugsp_refine_case0.npz")
    with torch.no_grad():
        found = refined.eval().outputs(*frames[:2], HALF, frames[2])
    torch.testing.assert_close(found["frame"].flip(1), expected["pred"], **CLOSE)
    torch.testing.assert_close(found["teacher_flow"], expected["flow_teacher"], **CLOSE)
    torch.testing.assert_close(found["teacher_frame"].flip(1), expected["pred_teacher"], **CLOSE)
    _, terms = _train(build_model("ugsp_refine"), refined, frames, expected, uniform)
    names = {
        "loss_laplacian_frame": ("loss_lap", 1),
        "loss_laplacian_auxiliary_frame": ("loss_lap_aux", 0.5),
        "loss_geometry_auxiliary_features": ("loss_contrast", 0.001),
        "loss_label": ("loss_mask_label", 0.05),
        "loss_teacher": ("loss_teacher", 1),
    }
    check_terms(terms, expected, names)
    refined.eval()


@pytest.fixture(scope="module")
def narrow():
    torch.manual_seed(0)
    network = build_model(NARROW).network
    with torch.no_grad():
        for block in network.blocks[:3]:
            block.keep.weight *= 8
            block.last.bias.normal_()
        network.blocks[3].last.bias.normal_()
    return network


NARROW = dict(
    type="ffplug_ugsp.FrameInterpolator",
    network=dict(type="ffplug_ugsp.UGSPNet", widths=(8, 12, 16, 20), depths=(1, 2, 2, 1)),
)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("budget", [None, (0.7, 0.45, 0.2), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
@torch.no_grad()
def test_sparse_equals_masked(narrow, drawn, budget, backend):
    narrow.budget = budget
    pair = drawn(1, (2, 3, 48, 80)), drawn(2, (2, 3, 48, 80))
    with use_backend(backend):
        found, masked = narrow.sparse(*pair), narrow.outputs(*pair, HALF)
    for mask, wanted in zip(found["masks"], masked["masks"], strict=True):
        assert torch.equal(mask.float(), wanted)
    torch.testing.assert_close(found["flow"], masked["flows"][3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["frame"], masked["frame"], atol=1e-5, rtol=0)
    if budget is not None:
        for mask, share, area in zip(found["masks"], budget, (60, 240, 960), strict=True):
            assert mask.flatten(1).sum(dim=1).tolist() == [round(share * area)] * 2
    narrow.budget = None


@torch.no_grad()
def test_threshold_is_a_budget_knob(narrow, drawn):
    pair = drawn(1, (1, 3, 32, 32)), drawn(2, (1, 3, 32, 32))
    shares = []
    for narrow.threshold in (-1e9, -0.5, 0.5, 1e9):
        shares.append(float(narrow.sparse(*pair)["masks"][2].float().mean()))
    narrow.threshold = 0.0
    assert shares[0] == 1 and shares[3] == 0 and shares == sorted(shares, reverse=True) and shares[1] < 1


@torch.no_grad()
def test_calibrated_threshold_meets_a_share_over_many_frames(narrow, drawn):
    pairs = [(drawn(seed, (1, 3, 64, 64)), drawn(seed + 9, (1, 3, 64, 64))) for seed in range(3)]
    whole = narrow.multiply_adds(64, 64)
    for share in (0.5, 0.8, 1.0):
        threshold = narrow.calibrate(pairs, share)
        masks = [narrow.sparse(*pair)["masks"] for pair in pairs]
        shares = [sum(float(one[level].float().mean()) for one in masks) / 3 for level in range(3)]
        needed = narrow.multiply_adds(64, 64, shares) / whole
        assert narrow.threshold == threshold and share - 0.05 < needed <= share
    with pytest.raises(ConfigError, match=r"share=0\.01: expected 0\.\d+ .* to 1"):
        narrow.calibrate(pairs, 0.01)
    with pytest.raises(ConfigError, match="no pairs"):
        narrow.calibrate([], 0.5)
    with pytest.raises(DataError, match="multiples of 16"):
        narrow.calibrate([(torch.zeros(1, 3, 60, 64),) * 2], 0.5)
    narrow.threshold = 0.0


def test_a_lead_starts_with_all_pixels(drawn):
    config = NARROW["network"] | dict(lead=6.0)
    network = build_model(NARROW | dict(network=config)).network
    masks = network.train().outputs(drawn(1, (1, 3, 32, 32)), drawn(2, (1, 3, 32, 32)), HALF)["masks"]
    assert all(mask.mean() > 0.9 for mask in masks)


def test_any_size_and_no_gradient(narrow, drawn):
    model = build_model(NARROW)
    model.load_state_dict({f"network.{key}": value for key, value in narrow.state_dict().items()})
    model.network.budget = (0.5, 0.5, 0.5)
    pair = drawn(1, (1, 3, 41, 70)), drawn(2, (1, 3, 41, 70))
    frame = model.interpolate(*pair)
    assert frame.shape == pair[0].shape and not frame.requires_grad
    sample = InterpolationSample(metainfo=dict(sample_id="one"))
    dense = model.train(False)(torch.stack(pair, dim=1), [sample], mode="predict")[0].pred_frame
    torch.testing.assert_close(dense, frame[0], atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="middle frame"):
        model.interpolate(*pair, 0.25)
    with pytest.raises(DataError, match="one shape"):
        model.interpolate(pair[0], pair[1][..., :-1])


def test_unpruned_network_is_the_pruned_one_with_full_masks(narrow, drawn):
    config = NARROW["network"] | dict(prune=False)
    dense = build_model(NARROW | dict(network=config)).network
    dense.load_state_dict(narrow.state_dict(), strict=False)
    pair = drawn(1, (1, 3, 32, 48)), drawn(2, (1, 3, 32, 48))
    narrow.threshold = -1e9
    with torch.no_grad():
        torch.testing.assert_close(dense(*pair, HALF), narrow(*pair, HALF), atol=1e-5, rtol=0)
    narrow.threshold = 0.0


@torch.no_grad()
def test_weights_are_prepared_once_for_a_video(narrow, drawn):
    pair, forms, frames, held = (drawn(1, (1, 3, 32, 32)), drawn(2, (1, 3, 32, 32))), {}, [], []
    for _ in range(2):
        with fixed_weights(forms):
            frames.append(narrow(*pair, HALF))
        held.append({key: value.data_ptr() for key, value in forms.items()})
    assert held[0] == held[1] and torch.equal(*frames)
    assert not forms or any(owner is narrow.blocks[3].head for owner, _ in forms)
