"""Classifiers of flow images against the public implementations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ffplug.errors import ConfigError
from ffplug.registry import MODELS
from ffplug.testing.golden import image, values

GOLDEN = Path(__file__).parent / "golden"


def build(**config):
    with torch.device("meta"):
        return MODELS.build(config)


def filled(model, keys):
    """The model with the golden's weights; its keys and shapes are those of the public one."""
    expected = json.loads((GOLDEN / keys).read_text())
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == expected
    model.to_empty(device="cpu").eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if torch.is_floating_point(value):
                value.copy_(torch.from_numpy(values(key, tuple(value.shape))) + float(key.endswith(".g")))
    return model


def close(found, expected, tolerance):
    assert tuple(found.shape) == expected.shape
    assert np.abs(found.numpy() - expected).max() <= tolerance


def watch(module):
    """Outputs of a module, call by call."""
    outputs = []
    module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    return outputs


def parameters(model):
    return sum(value.numel() for value in model.parameters())


@torch.no_grad()
def test_ststnet():
    golden = np.load(GOLDEN / "ststnet" / "ststnet.npz")
    model = filled(build(type="ffplug_face.STSTNet"), "ststnet/ststnet_keys.json")
    assert parameters(model) == 1683
    pictures = torch.from_numpy(image(13, (6, 3, 28, 28)))
    close(model(pictures), golden["logits"], 1e-3)
    close(model.streams(pictures[:2]), golden["concat_10x10"], 1e-3)


@torch.no_grad()
def test_rcn_a():
    golden = np.load(GOLDEN / "rcn" / "rcn_a.npz")
    model = filled(build(type="ffplug_face.RCNA"), "rcn/rcn_a_keys.json")
    assert parameters(model) == 15331
    first, recurrent = watch(model.conv1), watch(model.pool)
    close(model(torch.from_numpy(image(17, (4, 3, 60, 60), 0, 1))), golden["logits"], 1e-5)
    close(first[0][:1, :4], golden["conv1"], 1e-5)
    close(recurrent[0][:1, :4], golden["recurrent"], 1e-5)
    close(model.attention(first[0]), golden["attention"], 1e-5)


def test_attention_of_a_constant_map_is_finite():
    model = MODELS.build(dict(type="ffplug_face.RCNA", width=4)).eval()
    model.classifier.weight.data.zero_()
    assert model(torch.zeros(1, 3, 60, 60)).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "config", "seed", "shape"),
    [
        ("htnet_released", {}, 11, (4, 3, 28, 28)),
        ("htnet_4tokens", {"image_size": 56, "dim": 48, "depths": (1, 1, 2)}, 12, (3, 3, 56, 56)),
    ],
)
def test_htnet(name, config, seed, shape):
    golden = np.load(GOLDEN / "htnet" / f"{name}.npz")
    model = filled(build(type="ffplug_face.HTNet", **config), f"htnet/{name}_keys.json")
    assert parameters(model) == json.loads(str(golden["meta"]))["params"]
    embedding, first = watch(model.to_patch_embedding), watch(model.layers[0][0])
    merged = [watch(model.layers[level][1]) for level in range(2)]
    close(model(torch.from_numpy(image(seed, shape))), golden["logits"], 1e-4)
    close(embedding[0][:1, :32], golden["patch_embedding"], 1e-4)
    close(first[0][:8, :32], golden["level0_transformer_first_blocks"], 1e-4)
    for level in range(2):
        close(merged[level][0][:1], golden[f"after_aggregate_{level}"], 1e-4)


def test_htnet_sizes_that_do_not_divide():
    with pytest.raises(ConfigError, match="image_size=30 must be a multiple"):
        build(type="ffplug_face.HTNet", image_size=30)


@pytest.mark.parametrize(
    ("two_streams", "count"),
    [
        (False, 2 * 6 * 9 + 6 + 6 * 16 * 9 + 16 + 784 * 1024 + 1024 + 1024 * 3 + 3),
        (
            True,
            2 * (6 * 25 + 6 + 6 * 16 * 25 + 16) + 1568 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 3 + 3,
        ),
    ],
)
def test_off_apexnet_sees_flow_alone(two_streams, count):
    model = MODELS.build(dict(type="ffplug_face.OFFApexNet", two_streams=two_streams)).eval()
    assert parameters(model) == count
    pictures = torch.rand(2, 3, 28, 28)
    changed = pictures.clone()
    changed[:, 2] = 0
    assert torch.equal(model(pictures), model(changed))
    for channel in range(2):
        changed = pictures.clone()
        changed[:, channel] = 0
        assert not torch.equal(model(pictures), model(changed))
