"""Conformance of the depth-wise convolution and the residual GELU."""

import pytest
import torch
import torch.nn.functional as F

from ffplug.ops import add_gelu, depthwise_conv2d
from ffplug.ops.contract import use_backend
from ffplug.testing.ops import OpConformance


class TestDepthwiseConv2d(OpConformance):
    op = depthwise_conv2d
    cases = {
        "size_15": lambda make: (make(2, 21, 9, 19), make(21, 1, 15, 15, scale=0.1), make(21), True, "gelu"),
        "size_7": lambda make: (make(1, 40, 11, 6), make(40, 1, 7, 7, scale=0.2), None, False, "none"),
        "size_1": lambda make: (make(1, 17, 5, 8), make(17, 1, 1, 1), make(17), True, "gelu"),
        "empty": lambda make: (make(0, 4, 3, 3), make(4, 1, 3, 3), None, False, "none"),
    }


class TestAddGELU(OpConformance):
    op = add_gelu
    cases = {
        "map": lambda make: (make(2, 5, 3, 4, scale=4), make(2, 5, 3, 4)),
        "mixed": lambda make: (
            make(2, 5, 3, 4).contiguous(memory_format=torch.channels_last),
            make(2, 5, 3, 4),
        ),
        "empty": lambda make: (make(0, 3), make(0, 3)),
    }


def test_gelu_is_the_exact_one_everywhere():
    x = torch.linspace(-12, 12, 100_001)
    with use_backend("cpp"):
        found = add_gelu(x, torch.zeros_like(x))
    exact = F.gelu(x.double())
    assert ((found - exact).abs() <= 3e-7 * x.abs() + 1e-12).all()
    assert found[x < -6].abs().max() < 1e-7 and (found[x > 7] == x[x > 7]).all()


def test_bad_arguments():
    x = torch.randn(1, 4, 5, 6)
    with pytest.raises(ValueError, match="k odd"):
        depthwise_conv2d(x, torch.randn(4, 1, 4, 4))
    with pytest.raises(ValueError, match="activation 'relu'"):
        depthwise_conv2d(x, torch.randn(4, 1, 3, 3), activation="relu")
    with pytest.raises(ValueError, match="equal shapes"):
        add_gelu(x, x[:, :2])
