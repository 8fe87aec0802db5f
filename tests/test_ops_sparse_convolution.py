"""Conformance of masked convolution, its list of pixels, and its Triton kernel under Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from ffplug.ops import active_pixels, pack_sparse_convolution, sparse_conv2d, use_backend
from ffplug.ops.native import use_instruction_set
from ffplug.testing.ops import Maker, OpConformance


@pytest.fixture(autouse=True)
def _exact_products():
    """On a GPU the kernels take TF32 where cuDNN may, which is less exact than the tolerances here."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    yield
    torch.backends.cudnn.allow_tf32 = before


def _case(make, count, channels, outputs, height, width, side=3, bias=True, slope=True, outside="zero", more=()):
    weight = make(outputs, channels + sum(more), side, side, scale=0.3)
    return (
        make(count, channels, height, width),
        weight,
        make.integers(count, 1, height, width, high=2).bool(),
        make(outputs) if bias else None,
        # Away from one, so that the kink at zero shows.
        make.uniform(outputs if slope == "each" else 1, low=0.1, high=0.4) if slope else None,
        outside,
        [make(count, c, height, width) for c in more],
    )


class TestSparseConv2d(OpConformance):
    op = sparse_conv2d
    cases = {
        "bias_outside": lambda make: _case(make, 1, 3, 18, 9, 11, outside="bias"),
        "concatenated": lambda make: _case(make, 1, 4, 6, 4, 9, side=1, more=(4, 3), outside="bias", slope=None),
        "concatenated_3x3": lambda make: _case(make, 2, 20, 33, 5, 4, more=(7,), bias=False),
        "many_outputs": lambda make: _case(make, 1, 9, 100, 12, 13, slope="each"),
        "plain": lambda make: _case(make, 1, 2, 3, 3, 2, bias=False, slope=None),
        "deep": lambda make: _case(make, 1, 530, 5, 3, 4),
        "one_pixel": lambda make: _case(make, 1, 3, 70, 1, 1),
        "empty": lambda make: _case(make, 0, 3, 4, 5, 6),
        "no_active_pixel": lambda make: (make(1, 3, 4, 5), make(2, 3, 3, 3), torch.zeros(1, 1, 4, 5) > 0, make(2)),
    }


class TestCloseTogether(OpConformance):
    """Enough channels and active pixels for Winograd's algorithm, whose rounding error is larger."""

    op = sparse_conv2d
    tolerance = 5e-5
    cases = {
        "bias_outside": lambda make: _case(make, 1, 16, 17, 5, 6, slope="each", outside="bias"),
        "zero_outside": lambda make: _case(make, 2, 20, 33, 9, 11, bias=False),
        "concatenated": lambda make: _case(make, 1, 18, 33, 6, 9, more=(5, 20, 1)),
        "several_blocks": lambda make: _case(make, 1, 37, 70, 22, 43, slope=None),
        "one_corner": lambda make: (
            make(1, 16, 9, 10),
            make(16, 16, 3, 3, scale=0.3),
            (make.integers(1, 1, 9, 10, low=1, high=2).cumsum(2).cumsum(3) > 54).to(make.device),
            make(16),
        ),
    }


def test_equals_the_dense_convolution_inside_and_the_fill_outside():
    """The definition itself, against the layers of a masked network written out."""
    make = Maker(torch.float64)
    x, weight, bias, slope = make(1, 6, 8, 9), make(5, 6, 3, 3), make(5), make.uniform(5)
    mask = make.integers(1, 1, 8, 9, high=2).bool()
    dense = F.prelu(F.conv2d(x, weight, bias, padding=1), slope)
    torch.testing.assert_close(sparse_conv2d(x, weight, mask, bias, slope), dense * mask, atol=1e-12, rtol=0)
    around = F.prelu(bias[None], slope).view(1, 5, 1, 1)
    torch.testing.assert_close(
        sparse_conv2d(x, weight, mask, bias, slope, outside="bias"), dense.where(mask, around), atol=1e-12, rtol=0
    )


def test_masked_layers_in_a_row_equal_the_dense_ones():
    """Zeros outside the mask make the sparse layers exact: conv, mask, PReLU, and a 1×1 over all of them."""
    make = Maker(torch.float64)
    mask = make.integers(1, 1, 7, 10, high=2).bool()
    weights, slope = [make(8, 8, 3, 3, scale=0.2) for _ in range(3)], make.uniform(8)
    last, bias = make(5, 32, 1, 1), make(5)
    dense = [make(1, 8, 7, 10) * mask]
    sparse = [dense[0]]
    active = active_pixels(mask)
    for weight in weights:
        dense.append(F.prelu(F.conv2d(dense[-1], weight, padding=1) * mask, slope))
        sparse.append(sparse_conv2d(sparse[-1], weight, mask, None, slope, active=active))
    wanted = F.conv2d(torch.cat(dense, dim=1), last, bias)
    found = sparse_conv2d(sparse[0], last, mask, bias, outside="bias", more=sparse[1:], active=active)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 1, 13, 17), (1, 1, 0, 4)])
@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_active_pixels_are_in_raster_order(size, backend):
    mask = torch.rand(size, generator=torch.Generator().manual_seed(0)) > 0.4
    with use_backend(backend):
        found = active_pixels(mask)
        everything = active_pixels(torch.ones_like(mask))
    assert found.dtype == torch.int32
    assert found.tolist() == [i for i, active in enumerate(mask.flatten().tolist()) if active]
    assert everything.tolist() == list(range(mask.numel()))


@pytest.mark.parametrize("instructions", ["avx512", "avx2", "portable"])
def test_prepared_lists_and_weights_change_nothing(instructions):
    if instructions == "avx512" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("needs AVX-512")
    make = Maker(torch.float32)
    args = _case(make, 2, 12, 50, 9, 8, slope="each", more=(6,))
    with use_instruction_set(instructions), use_backend("cpp"):
        found = sparse_conv2d(*args, active=active_pixels(args[2]), packed=pack_sparse_convolution(args[1]))
        assert torch.equal(found, sparse_conv2d(*args))


def test_values_do_not_depend_on_the_number_of_threads():
    args = _case(Maker(torch.float32), 2, 12, 50, 19, 18, slope="each")
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(sparse_conv2d(*args))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_concatenated_inputs_get_their_gradients():
    make = Maker(torch.float64)
    x, weight, mask, bias, slope, outside, more = _case(make, 1, 3, 4, 5, 6, more=(2, 3))
    parts = [item.requires_grad_() for item in (x, *more)]
    grads = torch.autograd.grad(sparse_conv2d(x, weight, mask, bias, slope, outside, more).square().sum(), parts)
    whole = torch.cat([item.detach() for item in parts], dim=1).requires_grad_()
    expected = torch.autograd.grad(
        sparse_conv2d.reference(whole, weight, mask, bias, slope, outside, [], None, None).square().sum(), whole
    )[0]
    torch.testing.assert_close(torch.cat(grads, dim=1), expected)


_INTERPRETED = """
import torch
from ffplug.ops import sparse_conv2d, use_backend
from ffplug.testing.ops import Maker
from test_ops_sparse_convolution import TestSparseConv2d, _case

calls = []
run = type(sparse_conv2d).triton
type(sparse_conv2d).triton = lambda *args: calls.append(1) or run(*args)
torch.backends.cudnn.allow_tf32 = False
cases = {**TestSparseConv2d.cases, "seven": lambda make: _case(make, 1, 4, 5, 9, 10, more=(1, 2, 3, 1, 2, 4))}
for name, case in cases.items():
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 5e-3)):
        values = sparse_conv2d.prepare(*case(Maker(dtype)))
        wide = [v.float() if isinstance(v, torch.Tensor) and v.dtype == dtype else v for v in values]
        wide[6] = [item.float() for item in values[6]]
        with use_backend("triton"):
            found = sparse_conv2d(*values)
        assert found.dtype == dtype
        torch.testing.assert_close(
            found.float(), sparse_conv2d.reference(*wide), atol=tolerance, rtol=tolerance, msg=lambda m: f"{name}: {m}"
        )
assert len(calls) == 2 * len(cases), calls
"""


def test_triton_kernel_in_its_interpreter():
    """The interpreter must be chosen before triton is imported: a process of its own."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run([sys.executable, "-c", _INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"weight": torch.zeros(4, 3, 5, 5)}, "weight"),
        ({"weight": torch.zeros(4, 2, 3, 3)}, "weight"),
        ({"mask": torch.zeros(1, 1, 5, 6)}, "mask"),
        ({"mask": torch.zeros(1, 3, 5, 6, dtype=torch.bool)}, "mask"),
        ({"bias": torch.zeros(3)}, "bias"),
        ({"slope": torch.zeros(2)}, "slope"),
        ({"outside": "one"}, "outside"),
        ({"more": [torch.zeros(1, 1, 5, 5)], "weight": torch.zeros(4, 4, 3, 3)}, "more"),
    ],
)
def test_wrong_arguments_are_named(change, named):
    given = {
        "x": torch.zeros(1, 3, 5, 6),
        "weight": torch.zeros(4, 3, 3, 3),
        "mask": torch.zeros(1, 1, 5, 6, dtype=torch.bool),
    }
    with pytest.raises(ValueError, match=f"sparse_conv2d: .*{named}"):
        sparse_conv2d(**{**given, **change})
