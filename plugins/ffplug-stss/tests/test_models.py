"""The network at golden parity, its converter and switches, and the model round it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_stss.channels import NAMES, Inputs, unpack
from ffplug_stss.models import STSS, STSSNet
from ffplug_stss.models.network import centre_mean, enlarge

import ffplug
from ffplug.errors import CheckpointError, ConfigError, DataError
from ffplug.ops import use_backend

GOLDEN = Path(__file__).parent / "golden" / "stss"
ERM = dict(type="ffplug_stss.EfficientReshading")
PUBLISHED = 417_241


def intermediates(network, inputs):
    found, named = (
        {},
        dict(
            motion_feature=network.history,
            down3=network.down[2],
            latent_raw=network.reshading.latent,
            key_raw=network.reshading.key,
            erm_out=network.reshading,
        ),
    )
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: found.__setitem__(name, output))
        for name, module in named.items()
    ]
    with torch.no_grad():
        found["output"] = network(*inputs)
    for handle in handles:
        handle.remove()
    return found


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module")
def filled(published):
    model = ffplug.build_model("stss")
    model.load_state_dict(ffplug.convert_state_dict(published, "stss"))
    return model


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_parity_with_filled_weights(filled, network_inputs, backend):
    with use_backend(backend):
        found = intermediates(filled.network, network_inputs(100))
    golden = np.load(GOLDEN / "net_filled.npz")
    assert set(golden) == set(found)
    for name, expected in golden.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ("weights", "seed", "kind", "file"),
    [("stss_lewis", 200, "blocks", "net_lewis_blocks.npz"), ("stss_arena", 300, "noise", "net_arena_noise.npz")],
)
def test_parity_with_released_weights(released, network_inputs, weights, seed, kind, file):
    model = ffplug.build_model("stss", released(weights))
    found = intermediates(model.network, network_inputs(seed, kind))
    for name, expected in np.load(GOLDEN / file).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("weights", ["stss_arena", "stss_lewis", "stss_subway", "stss_suntemple"])
def test_released_weights_are_whole(released, weights):
    model = ffplug.get_model("stss", pretrained=released(weights))
    assert count(model.network) == PUBLISHED


def test_half_precision_stays_close(filled, network_inputs):
    inputs = network_inputs(100)
    with torch.no_grad():
        exact = filled.network(*inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = filled.network(*inputs).float()
    assert 10 * torch.log10((exact - rough).square().mean()) < 20 * torch.log10(exact.abs().max()) - 35


def test_parts_have_the_published_sizes():
    sizes = [
        count(STSSNet(history=False)),
        count(STSSNet()),
        count(STSSNet(ERM)),
    ]
    assert sizes == [141_008, 141_008 + 120_697, PUBLISHED]


@pytest.mark.parametrize(
    "options", [dict(), dict(reshading=ERM, history=False), dict(reshading=ERM, align_corners=False)]
)
def test_switches(network_inputs, options):
    network = STSSNet(**options).eval()
    with torch.no_grad():
        out = network(*network_inputs(1, batch=2, height=16, width=24))
    assert out.shape == (2, 3, 32, 48) and bool(out.isfinite().all())


def test_a_frame_of_nothing_but_holes(filled, network_inputs):
    x, feature, mask, history = network_inputs(100)
    found = intermediates(filled.network, (x, feature, torch.zeros_like(mask), history))
    assert not found["erm_out"].any() and bool(found["output"].isfinite().all())


def test_the_mask_shrinks_as_bilinear_does(network_inputs):
    mask = network_inputs(3)[2]
    expected = torch.nn.functional.interpolate(mask, scale_factor=0.125, mode="bilinear", align_corners=False)
    torch.testing.assert_close(centre_mean(mask), expected)


def test_inputs_pack_and_unpack(network_inputs):
    inputs = Inputs(*network_inputs(5, batch=2, height=8, width=16))
    packed = inputs.pack()
    assert packed.shape == (2, len(NAMES), 8, 16)
    for part, again in zip(inputs, unpack(packed), strict=True):
        torch.testing.assert_close(part, again, rtol=0, atol=0)
    assert NAMES.index("mask") == 15 and NAMES[18:20] == ("history.oldest.b", "history.oldest.mask")


def test_predictions_of_odd_sizes_are_unpadded(filled):
    batch = filled.example_batch(2)
    data = filled.data_preprocessor(batch, False)
    assert data["inputs"].shape == (2, 28, 24, 32)
    with torch.no_grad():
        samples = filled(**data, mode="predict")
    for sample, inputs in zip(samples, batch["inputs"], strict=True):
        assert sample.pred_frame.shape == (3, 40, 56)
        torch.testing.assert_close(sample.base_frame[:, 2:-2, 2:-2], enlarge(inputs[None, :3])[0, :, 2:-2, 2:-2])
        hole = sample.region_hole
        assert hole[10:18, 14:26].min() == 1 and 0 < float(hole.mean()) < 1


def test_training_moves_the_loss():
    torch.manual_seed(0)
    model = STSS(dict(type="ffplug_stss.STSSNet", reshading=ERM), [dict(type="ffplug_stss.ReshadingLoss")])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    data = model.data_preprocessor(model.example_batch(1), True)
    totals = []
    for _ in range(12):
        total = sum(model(**data, mode="loss").values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < totals[0]


def test_what_is_refused(filled, network_inputs, published):
    inputs = network_inputs(1, height=12, width=16)
    with pytest.raises(ConfigError, match=r"12×16 pixels: expected sides in multiples of 8"):
        filled.network(*inputs)
    with pytest.raises(DataError, match="expected 28 channels"):
        filled(torch.zeros(1, 27, 8, 8))
    with pytest.raises(ConfigError, match="mode='train'"):
        filled(torch.zeros(1, 28, 8, 8), mode="train")
    with pytest.raises(DataError, match="gt_frame"):
        filled(torch.zeros(1, 28, 8, 8), [], mode="loss")
    broken = dict(published)
    del broken["conv1.conv_mask.0.bias"]
    with pytest.raises(CheckpointError, match="missing keys"):
        ffplug.convert_state_dict(broken, "stss")
