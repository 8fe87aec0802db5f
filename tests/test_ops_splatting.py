"""Forward splatting: conformance, published values, holes, softmax under shifts."""

import numpy as np
import pytest
import torch
from golden_cases import GOLDEN

from ffplug.ops import forward_splat, splat_sum
from ffplug.testing.golden import image as golden_image
from ffplug.testing.ops import OpConformance, available_backends, on_backend

BACKENDS = ["torch", *available_backends(splat_sum)]


def last(value):
    return value.contiguous(memory_format=torch.channels_last)


class TestSplatSum(OpConformance):
    op = splat_sum
    cases = {
        "channels_last": lambda make: (last(make(2, 21, 6, 7)), make(2, 2, 6, 7, scale=2)),
        "slice": lambda make: (make(1, 5, 6, 30)[:, 1:4, 1:, 3:25], make(1, 2, 5, 22, scale=3)),
        "wide": lambda make: (make(1, 1, 2, 531), make(1, 2, 2, 531, scale=2)),
        "one_column": lambda make: (make(1, 2, 5, 1), make(1, 2, 5, 1)),
        "one_pixel": lambda make: (make(1, 2, 1, 1), make(1, 2, 1, 1, scale=0.4)),
        "whole_pixels": lambda make: (make(1, 2, 6, 7), make(1, 2, 6, 7, scale=3).round()),
        "empty": lambda make: (make(0, 2, 3, 5), make(0, 2, 3, 5)),
    }


def golden(dtype, device):
    data = np.load(GOLDEN / "softsplat" / "softsplat_case0.npz")
    arrays = {name: data[name] for name in data}
    arrays["image"] = golden_image(501, (2, 3, 12, 16), 0, 1)
    arrays["metric"] = golden_image(503, (2, 1, 12, 16), -3, 3)
    arrays["weight"] = golden_image(504, (2, 3, 12, 16), -1, 1)
    return {name: torch.from_numpy(np.asarray(array)).to(device, dtype) for name, array in arrays.items()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_values(backend, dtype):
    with on_backend(backend) as device:
        g = golden(dtype, device)
        broken = g["flow"].clone()
        broken[0, 0, 1, 1], broken[0, 1, 1, 2] = float("nan"), float("inf")
        found = {
            "sum": forward_splat(g["image"], g["flow"]),
            "avg": forward_splat(g["image"], g["flow"], mode="average"),
            "avg_zeroeps": forward_splat(g["image"], g["flow"], mode="average", epsilon="zero"),
            "avg_clipeps": forward_splat(g["image"], g["flow"], mode="average", epsilon="clip"),
            "linear": forward_splat(g["image"], g["flow"], g["linear_metric"], mode="linear"),
            "soft": forward_splat(g["image"], g["flow"], g["metric"], mode="softmax"),
            "sum_nonfinite": forward_splat(g["image"], broken),
            "soft_nonfinite": forward_splat(g["image"], broken, g["metric"], mode="softmax"),
        }
    for name, value in found.items():
        tolerance = (1e-12 if dtype == torch.float64 else 2e-5) * g[name].abs().max()
        assert (value - g[name]).abs().max() <= tolerance, name
        assert torch.equal(value == 0, g[name] == 0), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_gradients(backend, dtype):
    with on_backend(backend) as device:
        g = golden(dtype, device)
        for mode, names in (("sum", ("image", "flow")), ("softmax", ("image", "flow", "metric"))):
            leaves = [g[name].clone().requires_grad_() for name in names]
            out = forward_splat(*leaves, mode=mode)
            for name, grad in zip(names, torch.autograd.grad((out * g["weight"]).sum(), leaves), strict=True):
                short = "input" if name == "image" else name
                expected = g[f"grad_{'soft' if mode == 'softmax' else 'sum'}_{short}"]
                tolerance = (1e-11 if dtype == torch.float64 else 1e-4) * expected.abs().max()
                assert (grad - expected).abs().max() <= tolerance, (mode, name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_infinite_pixels_that_reach_nothing(backend):
    with on_backend(backend) as device:
        image, flow = torch.ones(1, 1, 4, 5, device=device), torch.zeros(1, 2, 4, 5, device=device)
        image[0, 0, 1, 1] = float("inf")
        flow[0, 0, 1, 1] = float("nan")
        out = splat_sum(image, flow)
    assert out[0, 0, 1, 1] == 0 and out.sum() == 19


def test_adjoint_of_backward_warp():
    from ffplug.ops import backward_warp

    torch.manual_seed(0)
    first, second = torch.randn(2, 1, 3, 9, 11, dtype=torch.float64)
    flow = torch.randn(1, 2, 9, 11, dtype=torch.float64) * 3
    torch.testing.assert_close((splat_sum(first, flow) * second).sum(), (first * backward_warp(second, flow)).sum())


@pytest.mark.parametrize("shift", [-500.0, -30.0, 30.0, 500.0])
def test_softmax_does_not_depend_on_a_shift(shift):
    torch.manual_seed(0)
    image, metric, flow = torch.rand(1, 3, 9, 11), torch.rand(1, 1, 9, 11), torch.randn(1, 2, 9, 11)
    weight = splat_sum(torch.ones_like(metric), flow)
    plain = forward_splat(image, flow, metric, mode="softmax")
    shifted = forward_splat(image, flow, metric + shift, mode="softmax")
    assert shifted.isfinite().all()
    assert torch.equal(shifted == 0, plain == 0)
    reached = (weight > 0.1).expand(plain.shape)
    torch.testing.assert_close(shifted[reached], plain[reached], atol=1e-4, rtol=1e-4)


def test_constant_image_stays_constant():
    torch.manual_seed(0)
    flow, metric = torch.randn(1, 2, 9, 11) * 2, torch.randn(1, 1, 9, 11)
    for mode in ("average", "softmax"):
        out = forward_splat(torch.full((1, 2, 9, 11), 3.0), flow, metric if mode == "softmax" else None, mode, "zero")
        torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 3.0))


def test_half_precision_sums_in_float32():
    torch.manual_seed(0)
    image, metric, flow = torch.rand(1, 3, 9, 11), torch.rand(1, 1, 9, 11) * 20, torch.randn(1, 2, 9, 11)
    arguments = [value.bfloat16() for value in (image, flow, metric)]
    found = forward_splat(*arguments, mode="softmax")
    assert found.dtype == torch.bfloat16
    wanted = forward_splat(arguments[0].float(), flow.bfloat16().float(), arguments[2].float(), mode="softmax")
    torch.testing.assert_close(found.float(), wanted, atol=1e-2, rtol=1e-2)


def test_splat_does_not_depend_on_threads():
    torch.manual_seed(0)
    image, flow = torch.rand(1, 3, 23, 31), torch.randn(1, 2, 23, 31) * 4
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            found.append(splat_sum(image, flow))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_arguments():
    image, flow = torch.rand(1, 3, 4, 5), torch.zeros(1, 2, 4, 5)
    with pytest.raises(ValueError, match="mode 'mean'"):
        forward_splat(image, flow, mode="mean")
    with pytest.raises(ValueError, match="takes no metric"):
        forward_splat(image, flow, image[:, :1], mode="average")
    with pytest.raises(ValueError, match=r"metric None .* expected \(1, 1, 4, 5\)"):
        forward_splat(image, flow, mode="softmax")
    with pytest.raises(ValueError, match=r"flow \(1, 2, 4, 4\)"):
        forward_splat(image, flow[..., :4])
