"""Conformance of the normalisation ops."""

import pytest
import torch

from ffplug.ops import instance_norm
from ffplug.ops.contract import use_backend
from ffplug.testing.ops import OpConformance


class TestInstanceNorm(OpConformance):
    op = instance_norm
    cases = {
        "relu": lambda make: (make(2, 37, 3, 4), 1e-5, True),
        "bands": lambda make: (make(1, 3, 33, 50) + 5, 1e-5, True),
        "one_pixel": lambda make: (make(2, 20, 1, 1), 1e-5, False),
        "no_sample": lambda make: (make(0, 3, 4, 5), 1e-5, False),
        "no_pixel": lambda make: (make(2, 3, 0, 5), 1e-5, True),
    }


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_a_large_mean_costs_no_digits(offset):
    torch.manual_seed(0)
    x = torch.randn(1, 16, 40, 50) + offset
    exact = instance_norm(x.double())
    with use_backend("cpp"):
        found = instance_norm(x)
    assert (found - exact).abs().max() < (1e-5 if offset == 0 else 2e-3)
