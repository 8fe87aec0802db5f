"""The references of the ops against plain definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ffplug.errors import ConfigError
from ffplug.ops import (
    backward_warp,
    convex_upsample,
    corr_lookup,
    corr_lookup_on_demand,
    forward_warp_flow,
    pool_levels,
)


def sampled(volume, x, y):
    """Bilinear value of one map at one point, zero outside: the definition, one tap at a time."""
    height, width = volume.shape
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    total = 0.0
    for j in (0, 1):
        for i in (0, 1):
            if 0 <= x0 + i < width and 0 <= y0 + j < height:
                total += float(volume[y0 + j, x0 + i]) * (1 - abs(x - x0 - i)) * (1 - abs(y - y0 - j))
    return total


@pytest.mark.parametrize("size", [(5, 6), (1, 3), (8, 8)])
def test_corr_lookup_definition(size):
    height, width = size
    torch.manual_seed(0)
    first, second = torch.randn(2, 1, 4, height, width, dtype=torch.float64)
    levels, sizes = pool_levels(second, 3)
    volume = first.flatten(2).transpose(1, 2) @ levels
    flow = torch.randn(1, 2, height, width, dtype=torch.float64) * 3
    flow[0, :, 0, 0] = torch.tensor([1.0, -1.0])  # integer targets
    radius = 2
    out = corr_lookup(volume, sizes, flow, radius)
    start = 0
    for level, (h, w) in enumerate(sizes):
        maps = volume[0, :, start : start + h * w].view(height * width, h, w)
        start += h * w
        for cell in range(0, height * width, 3):
            row, column = divmod(cell, width)
            x = (column + float(flow[0, 0, row, column])) / 2**level
            y = (row + float(flow[0, 1, row, column])) / 2**level
            for dx in range(-radius, radius + 1):
                for dy in range(-radius, radius + 1):
                    channel = level * 25 + (dx + radius) * 5 + dy + radius
                    expected = sampled(maps[cell], x + dx, y + dy)
                    assert abs(float(out[0, channel, row, column]) - expected) < 1e-12


def test_pooled_features_are_the_pooled_volume():
    first, second = torch.randn(2, 2, 8, 9, 13, dtype=torch.float64)
    levels, sizes = pool_levels(second, 3)
    volume = (first.flatten(2).transpose(1, 2) @ levels).split([h * w for h, w in sizes], dim=2)
    full = volume[0].reshape(-1, 1, 9, 13)
    for level in (1, 2):
        full = F.avg_pool2d(full, 2)
        torch.testing.assert_close(volume[level].reshape(full.shape), full)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_on_demand_equals_stored(chunk):
    torch.manual_seed(1)
    first, second = torch.randn(2, 2, 6, 7, 9)
    levels, sizes = pool_levels(second, 4)
    flow = torch.randn(2, 2, 7, 9) * 4
    stored = corr_lookup(first.flatten(2).transpose(1, 2) @ levels, sizes, flow, 3)
    on_demand = corr_lookup_on_demand(first, levels, sizes, flow, 3, chunk=chunk)
    torch.testing.assert_close(on_demand, stored, atol=1e-5, rtol=1e-5)


def test_lookup_gradients():
    torch.manual_seed(2)
    first, second = torch.randn(2, 1, 3, 3, 4, dtype=torch.float64, requires_grad=True).unbind(0)
    flow = torch.randn(1, 2, 3, 4, dtype=torch.float64)

    def through_volume(a, b):
        levels, sizes = pool_levels(b, 2)
        return corr_lookup(a.flatten(2).transpose(1, 2) @ levels, sizes, flow, 1)

    def on_demand(a, b):
        levels, sizes = pool_levels(b, 2)
        return corr_lookup_on_demand(a, levels, sizes, flow, 1)

    inputs = (first.detach().requires_grad_(), second.detach().requires_grad_())
    assert torch.autograd.gradcheck(through_volume, inputs)
    assert torch.autograd.gradcheck(on_demand, inputs)


def test_convex_upsample_golden():
    from golden_cases import GOLDEN

    path = GOLDEN / "flow_data" / "case1.npz"
    if not path.exists():
        pytest.skip("golden flow_data is not here")
    data = np.load(path)
    flow, mask = torch.from_numpy(data["up_flow"]), torch.from_numpy(data["up_mask"])
    torch.testing.assert_close(convex_upsample(flow, mask), torch.from_numpy(data["up_out"]), atol=1e-4, rtol=1e-4)
    warm = forward_warp_flow(torch.from_numpy(data["warm_in"])[None])[0]
    torch.testing.assert_close(warm, torch.from_numpy(data["warm_out"]).float(), atol=1e-5, rtol=1e-5)


def test_convex_upsample_of_a_constant():
    flow = torch.full((1, 2, 5, 6), 1.5)
    fine = convex_upsample(flow, torch.randn(1, 576, 5, 6))
    torch.testing.assert_close(fine[..., 8:-8, 8:-8], torch.full((1, 2, 24, 32), 12.0))


def test_backward_warp_by_whole_pixels():
    image = torch.rand(1, 3, 6, 7)
    flow = torch.zeros(1, 2, 6, 7)
    flow[:, 0], flow[:, 1] = 2, -1
    warped = backward_warp(image, flow)
    torch.testing.assert_close(warped[..., 1:, :-2], image[..., :-1, 2:])
    assert warped[..., 0, :].abs().max() < 1e-6


def test_forward_warp_moves_a_patch():
    flow = torch.zeros(1, 2, 8, 8)
    flow[0, 0, 3, 2] = 3.0
    moved = forward_warp_flow(flow)
    assert moved[0, 0, 3, 5] == 3 or moved[0, 0, 3, 5] == 0  # two cells land there; either is nearest
    gone = forward_warp_flow(torch.full((1, 2, 4, 4), 100.0))
    assert gone.abs().max() == 0


def test_unknown_backend(monkeypatch):
    monkeypatch.setenv("FFPLUG_OPS", "cud")
    with pytest.raises(ConfigError, match="did you mean 'cuda'"):
        backward_warp(torch.rand(1, 1, 2, 2), torch.zeros(1, 2, 2, 2))
