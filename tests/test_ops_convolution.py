"""Conformance of the dense convolution."""

import pytest
import torch
import torch.nn.functional as F

from ffplug.ops import pack_convolution, winograd_conv2d
from ffplug.ops.contract import use_backend
from ffplug.testing.ops import OpConformance


def case(inputs, outputs, kernel, size, activation="none", bias=True, addend=False, count=1):
    def make(maker):
        return (
            maker(count, inputs, *size),
            maker(outputs, inputs, *kernel, scale=(inputs * kernel[0] * kernel[1]) ** -0.5),
            maker(outputs) if bias else None,
            maker(count, outputs, *size) if addend else None,
            activation,
        )

    return make


class TestWinogradConv2d(OpConformance):
    op = winograd_conv2d
    cases = {
        "square": case(37, 70, (3, 3), (9, 14), "relu", count=2),
        "row": case(40, 65, (1, 5), (6, 11), "sigmoid", addend=True),
        "column": case(17, 130, (5, 1), (11, 6), "tanh", bias=False, addend=True),
        "one_pixel": case(5, 6, (3, 3), (1, 1)),
        "empty": case(3, 4, (3, 3), (4, 5), count=0),
    }


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (5, 1)])
def test_rounding_stays_small_with_many_channels(kernel):
    torch.manual_seed(0)
    x = torch.randn(1, 256, 20, 24).relu()
    weight = torch.randn(64, 256, *kernel) / (256 * kernel[0] * kernel[1]) ** 0.5
    exact = F.conv2d(x.double(), weight.double(), padding=(kernel[0] // 2, kernel[1] // 2))
    with use_backend("cpp"):
        found = winograd_conv2d(x, weight, packed=pack_convolution(weight))
    assert (found - exact).abs().max() < 2e-5 * exact.std()


def test_bad_arguments():
    x = torch.randn(1, 4, 5, 6)
    with pytest.raises(ValueError, match=r"kernel \(7, 7\)"):
        winograd_conv2d(x, torch.randn(4, 4, 7, 7))
    with pytest.raises(ValueError, match="weight"):
        winograd_conv2d(x, torch.randn(4, 5, 3, 3))
    with pytest.raises(ValueError, match="activation 'gelu'"):
        winograd_conv2d(x, torch.randn(4, 4, 3, 3), activation="gelu")
    with pytest.raises(ValueError, match="addend"):
        winograd_conv2d(x, torch.randn(4, 4, 3, 3), addend=torch.randn(1, 4, 6, 5))
