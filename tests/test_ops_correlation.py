"""The correlation look-ups against plain definitions, and their conformance."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ffplug.ops import corr_lookup, corr_lookup_on_demand, pool_levels
from ffplug.testing.ops import OpConformance


def stored(maker, shape, levels, radius, scale=3.0):
    count, height, width = shape
    sizes = tuple((height >> level, width >> level) for level in range(levels))
    cells = sum(h * w for h, w in sizes)
    return maker(count, height * width, cells), sizes, maker(count, 2, height, width, scale=scale), radius


def on_demand(maker, shape, channels, levels, radius, scale=3.0):
    count, height, width = shape
    volume, sizes, flow, _ = stored(maker, shape, levels, radius, scale)
    return maker(count, height * width, channels), maker(count, volume.shape[-1], channels), sizes, flow, radius


class TestCorrLookup(OpConformance):
    op = corr_lookup
    cases = {
        "radius_4": lambda make: stored(make, (1, 9, 13), 4, 4),
        "one_row": lambda make: stored(make, (2, 1, 5), 2, 2),
        "far_outside": lambda make: stored(make, (1, 4, 5), 2, 3, scale=1e6),
        "empty": lambda make: stored(make, (0, 3, 4), 2, 1),
    }


class TestCorrLookupOnDemand(OpConformance):
    op = corr_lookup_on_demand
    cases = {
        "batch": lambda make: on_demand(make, (2, 3, 4), 3, 2, 1),
        "radius_4": lambda make: on_demand(make, (1, 9, 13), 64, 4, 4, scale=1.0),
        "radius_3": lambda make: on_demand(make, (1, 8, 9), 37, 3, 3),
        "radius_7": lambda make: on_demand(make, (1, 5, 6), 20, 2, 7),
        "far_outside": lambda make: on_demand(make, (1, 4, 5), 6, 2, 3, scale=1e6),
        "empty": lambda make: on_demand(make, (0, 3, 4), 5, 2, 1),
    }


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
def test_definition(size):
    height, width = size
    torch.manual_seed(0)
    first, second = torch.randn(2, 1, 4, height, width, dtype=torch.float64)
    table, sizes = pool_levels(second, 3)
    volume = first.flatten(2).transpose(1, 2) @ table.transpose(1, 2)
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
    table, sizes = pool_levels(second, 3)
    volume = (first.flatten(2).transpose(1, 2) @ table.transpose(1, 2)).split([h * w for h, w in sizes], dim=2)
    full = volume[0].reshape(-1, 1, 9, 13)
    for level in (1, 2):
        full = F.avg_pool2d(full, 2)
        torch.testing.assert_close(volume[level].reshape(full.shape), full)


def test_on_demand_equals_stored():
    torch.manual_seed(1)
    first, second = torch.randn(2, 2, 96, 7, 9)
    table, sizes = pool_levels(second, 4)
    query = first.flatten(2).transpose(1, 2)
    flow = torch.randn(2, 2, 7, 9) * 4
    whole = corr_lookup(query @ table.transpose(1, 2), sizes, flow, 3)
    torch.testing.assert_close(corr_lookup_on_demand(query, table, sizes, flow, 3), whole, atol=1e-4, rtol=1e-5)


def test_targets_that_are_not_finite_read_zero():
    table, sizes = pool_levels(torch.randn(1, 4, 4, 5), 2)
    flow = torch.zeros(1, 2, 4, 5)
    flow[0, 0, 1, 1], flow[0, 1, 2, 2] = float("inf"), float("-inf")
    out = corr_lookup_on_demand(torch.randn(1, 20, 4), table, sizes, flow, 1)
    assert out[0, :, 0, 0].isfinite().all()


def test_bad_arguments():
    with pytest.raises(ValueError, match="expected levels of 7 cells"):
        corr_lookup(torch.randn(1, 6, 7), ((2, 3),), torch.zeros(1, 2, 2, 3), 1)
    with pytest.raises(ValueError, match=r"volume \(1, 5, 6\)"):
        corr_lookup(torch.randn(1, 5, 6), ((2, 3),), torch.zeros(1, 2, 2, 3), 1)
    with pytest.raises(ValueError, match="table"):
        corr_lookup_on_demand(torch.randn(1, 6, 4), torch.randn(1, 6, 5), ((2, 3),), torch.zeros(1, 2, 2, 3), 1)
