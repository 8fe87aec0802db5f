"""The stand-ins for mmcv's ops compute what mmcv's ops are documented to compute."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ffplug_mmflow.ops import Correlation, DeformConv2d, correlation

CASES = [
    dict(max_displacement=2),
    dict(max_displacement=1, padding=2, stride=2),
    dict(max_displacement=2, dilation_patch=2),
    dict(kernel_size=3, max_displacement=1, padding=1),
    dict(kernel_size=3, max_displacement=1, padding=3, dilation=2, stride=3, dilation_patch=3),
]


def dense(first, second, kernel_size=1, max_displacement=1, stride=1, padding=0, dilation=1, dilation_patch=1):
    """The sum over window and channels, written out; outside of a map there is nothing."""
    count, _, height, width = first.shape
    sides = [(side + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1 for side in (height, width)]
    shifts = 2 * max_displacement + 1
    out = np.zeros((count, shifts, shifts, *sides))
    inside = lambda y, x: 0 <= y < height and 0 <= x < width  # noqa: E731
    for dy, dx, y, x in itertools.product(range(shifts), range(shifts), range(sides[0]), range(sides[1])):
        for i, j in itertools.product(range(kernel_size), repeat=2):
            row, column = y * stride - padding + i * dilation, x * stride - padding + j * dilation
            other = (row + (dy - max_displacement) * dilation_patch, column + (dx - max_displacement) * dilation_patch)
            if inside(row, column) and inside(*other):
                product = first[:, :, row, column] * second[:, :, other[0], other[1]]
                out[:, dy, dx, y, x] += product.sum(1)
    return out


@pytest.mark.parametrize("options", CASES, ids=str)
def test_correlation_is_the_dense_sum(options):
    first, second = (torch.from_numpy(np.random.RandomState(seed).randn(2, 3, 7, 8)) for seed in (1, 2))
    found = Correlation(**options)(first, second)
    np.testing.assert_allclose(found.numpy(), dense(first.numpy(), second.numpy(), **options), atol=1e-12)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_gradients_of_correlation(options):
    maps = [torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda first, second: correlation(first, second, **options), maps)


def test_deformable_convolution_without_offsets_is_convolution():
    layer = DeformConv2d(4, 6, 3, padding=1)
    features = torch.randn(2, 4, 6, 7)
    found = layer(features, torch.zeros(2, 18, 6, 7))
    torch.testing.assert_close(found, F.conv2d(features, layer.weight, padding=1), atol=1e-5, rtol=1e-5)


def test_offsets_have_rows_before_columns():
    layer = DeformConv2d(4, 6, 3, padding=1)
    features = torch.randn(1, 4, 6, 7)
    offset = torch.zeros(1, 9, 2, 6, 7)
    offset[:, :, 0] = 1  # one row down
    expected = F.conv2d(F.pad(features, (0, 0, 0, 1))[:, :, 1:], layer.weight, padding=1)
    found = layer(features, offset.flatten(1, 2))
    torch.testing.assert_close(found[:, :, 1:-1], expected[:, :, 1:-1], atol=1e-5, rtol=1e-5)


def test_wrong_arguments_of_deformable_convolution():
    with pytest.raises(ValueError, match="groups"):
        DeformConv2d(4, 6, 3, groups=3)
