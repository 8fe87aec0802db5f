"""Conformance of local window attention, and its parity with a published network's module."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ffplug.ops import local_window_attention
from ffplug.testing.golden import image
from ffplug.testing.ops import Maker, OpConformance, available_backends, on_backend

GOLDEN = Path(__file__).parent / "golden" / "stss_erm"


def _case(make, count, inputs, outputs, height, width, *rest):
    maps = (make(count, channels, height, width, scale=0.5) for channels in (inputs, inputs, outputs))
    return (*maps, *rest)


class TestLocalWindowAttention(OpConformance):
    op = local_window_attention
    cases = {
        "relu_5x5": lambda make: _case(make, 1, 7, 9, 9, 35, 2, 1, 1.0, "relu"),
        "excluded_border": lambda make: _case(make, 2, 4, 3, 11, 6, 2, 1, 0.5, "softmax", "exclude"),
        "dilated": lambda make: _case(make, 1, 5, 4, 7, 9, 1, 3, 2.0, "softmax", "exclude"),
        "scores_alone": lambda make: _case(make, 1, 2, 6, 5, 70, 4, 1, 1.0, "none"),
        "one_pixel": lambda make: _case(make, 1, 3, 2, 1, 1, 2, 1, 1.0, "softmax", "exclude"),
        "no_window": lambda make: _case(make, 1, 3, 2, 3, 4, 0),
        "empty": lambda make: _case(make, 0, 3, 2, 3, 4, 1),
    }


class TestRelu(OpConformance):
    """The other normalisation by finite differences."""

    op = local_window_attention
    example = staticmethod(lambda make: _case(make, 1, 2, 3, 3, 4, 1, 1, 1.5, "relu"))


class TestExcluded(OpConformance):
    op = local_window_attention
    example = staticmethod(lambda make: _case(make, 1, 2, 3, 3, 4, 1, 2, 1.5, "softmax", "exclude"))


def unfolded(query, key, value, radius, normalization="softmax"):
    """What users write: windows by unfold, N×C×(2r+1)²×HW."""
    count, channels, height, width = query.shape
    side = 2 * radius + 1
    keys = F.unfold(key, side, padding=radius).view(count, channels, side * side, height * width)
    values = F.unfold(value, side, padding=radius).view(count, value.shape[1], side * side, height * width)
    score = (query.flatten(2)[:, :, None] * keys).sum(dim=1)
    if normalization == "softmax":
        weight = score.softmax(dim=1)
    else:
        weight = score.relu() / score.relu().sum(dim=1, keepdim=True).clamp(min=1e-6)
    return (weight[:, None] * values).sum(dim=2).view(value.shape)


@pytest.mark.parametrize("normalization", ["softmax", "relu"])
@pytest.mark.parametrize("backend", [*available_backends(local_window_attention), "torch"])
def test_equals_unfold(backend, normalization):
    make = Maker(torch.float64)
    maps = make(2, 4, 6, 9), make(2, 4, 6, 9), make(2, 5, 6, 9)
    with on_backend(backend) as device:
        found = local_window_attention(*(m.to(device) for m in maps), 2, normalization=normalization)
    torch.testing.assert_close(found.cpu(), unfolded(*maps, 2, normalization), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("backend", [*available_backends(local_window_attention), "torch"])
def test_reshading_module_of_a_published_network(backend):
    """Query: unit keys; key: the same times the validity mask; value: latents times the mask."""
    golden = {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "net_filled.npz").items()}
    mask = torch.from_numpy((image(103, (1, 1, 64, 96), 0, 1) > 0.25).astype(np.float32))
    mask = F.interpolate(mask, scale_factor=0.125, mode="bilinear", align_corners=False)
    unit = F.normalize(golden["key_raw"], dim=1)
    with on_backend(backend) as device:
        maps = (m.to(device) for m in (unit, mask * unit, mask * golden["latent_raw"]))
        found = local_window_attention(*maps, radius=2, normalization="relu")
    torch.testing.assert_close(found.cpu(), golden["erm_out"], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", [*available_backends(local_window_attention), "torch"])
def test_nothing_valid_gives_zero_and_finite_gradients(backend):
    make = Maker(torch.float32)
    with on_backend(backend) as device:
        query, value = make(1, 3, 4, 5).to(device), make(1, 2, 4, 5).to(device)
        maps = [item.requires_grad_() for item in (query, torch.zeros_like(query), value)]
        found = local_window_attention(*maps, radius=2, normalization="relu")
        grads = torch.autograd.grad(found.sum(), maps)
    assert torch.equal(found, torch.zeros_like(found))
    assert all(grad.isfinite().all() for grad in grads)


def test_gradients_do_not_depend_on_the_number_of_threads():
    make = Maker(torch.float32)
    maps = [item.requires_grad_() for item in (make(1, 4, 21, 40), make(1, 4, 21, 40), make(1, 5, 21, 40))]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(torch.autograd.grad(local_window_attention(*maps, 2).square().sum(), maps))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"key": torch.zeros(1, 3, 4, 5)}, "key"),
        ({"value": torch.zeros(1, 3, 4, 5)}, "value"),
        ({"radius": -1}, "radius"),
        ({"dilation": 0}, "dilation"),
        ({"normalization": "sum"}, "normalization"),
        ({"border": "edge"}, "border"),
    ],
)
def test_wrong_arguments_are_named(change, named):
    given = {"query": torch.zeros(1, 3, 4, 6), "key": torch.zeros(1, 3, 4, 6), "value": torch.zeros(1, 2, 4, 6)}
    with pytest.raises(ValueError, match=f"local_window_attention: .*{named}"):
        local_window_attention(**{**given, "radius": 2, **change})
