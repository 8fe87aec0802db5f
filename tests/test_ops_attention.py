"""Conformance of attention weights, and the products beneath them."""

import pytest
import torch
import torch.nn.functional as F

from ffplug.ops import attention_weights, batched_row_product, row_product
from ffplug.testing.ops import OpConformance


class TestAttentionWeights(OpConformance):
    op = attention_weights
    cases = {
        "chunks": lambda make: (make(1, 2, 300, 4, scale=3), make(1, 2, 37, 4, scale=3)),
        "far_apart": lambda make: (make(1, 3, 2, scale=40), make(1, 20, 2, scale=40)),
        "no_query": lambda make: (make(2, 0, 3), make(2, 4, 3)),
        "no_sample": lambda make: (make(0, 4, 3), make(0, 4, 3)),
    }


@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("count", [3, 200])
def test_row_product(activation, count):
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(2, count, 19), torch.randn(11, 19), torch.randn(11)
    expected = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}[activation](F.linear(rows, weight, bias))
    with torch.no_grad():
        torch.testing.assert_close(row_product(rows, weight, bias, activation), expected, atol=1e-5, rtol=1e-5)
        columns = rows.mT.contiguous().mT, weight.mT.contiguous().mT
        torch.testing.assert_close(row_product(*columns, bias, activation), expected, atol=1e-5, rtol=1e-5)
    weight.requires_grad_()
    assert row_product(rows, weight, bias, activation).requires_grad


def test_batched_row_product():
    rows, weight = torch.randn(2, 3, 140, 6), torch.randn(2, 3, 5, 6)
    with torch.no_grad():
        found = batched_row_product(rows, weight)
    torch.testing.assert_close(found, rows @ weight.transpose(-1, -2), atol=1e-5, rtol=1e-5)
