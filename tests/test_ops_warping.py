"""Backward warping and the forward warp of a flow: conformance, definitions, published values."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_cases import GOLDEN

from ffplug.ops import backward_warp, forward_warp_flow, use_backend
from ffplug.testing.ops import OpConformance, available_backends, on_backend


def last(value):
    return value.contiguous(memory_format=torch.channels_last)


class TestBackwardWarp(OpConformance):
    op = backward_warp
    cases = {
        "border": lambda make: (make(1, 3, 9, 19), make(1, 2, 9, 19, scale=5), "border"),
        "channels_last": lambda make: (last(make(2, 21, 6, 7)), make(2, 2, 6, 7, scale=2), "zeros"),
        "channels_last_border": lambda make: (last(make(1, 35, 4, 7)), make(1, 2, 4, 7, scale=3), "border"),
        "slice": lambda make: (make(1, 5, 6, 30)[:, 1:4, 1:, 3:25], make(1, 2, 5, 22, scale=3), "zeros"),
        "wide": lambda make: (make(1, 1, 2, 531), make(1, 2, 2, 531, scale=2), "zeros"),
        "one_column": lambda make: (make(1, 2, 5, 1), make(1, 2, 5, 1), "zeros"),
        "one_row": lambda make: (last(make(1, 2, 1, 5)), make(1, 2, 1, 5), "border"),
        "one_pixel": lambda make: (make(1, 2, 1, 1), make(1, 2, 1, 1, scale=0.4), "border"),
        "whole_pixels": lambda make: (make(1, 2, 6, 7), make(1, 2, 6, 7, scale=3).round(), "border"),
        "whole_pixels_zeros": lambda make: (make(1, 2, 6, 7), make(1, 2, 6, 7, scale=3).round(), "zeros"),
        "empty": lambda make: (make(0, 2, 3, 5), make(0, 2, 3, 5), "zeros"),
    }


class TestForwardWarpFlow(OpConformance):
    op = forward_warp_flow
    cases = {
        "large_motion": lambda make: (make(1, 2, 23, 37, scale=12),),
        "still": lambda make: (make(1, 2, 6, 9, scale=0),),
        # Quarter cells make many equal distances.
        "ties": lambda make: ((make(2, 2, 13, 17, scale=3) * 4).round() / 4,),
        "one_left": lambda make: (one_left(make),),
        "all_leave": lambda make: (make(2, 2, 4, 5) + 100,),
        "one_cell": lambda make: (make(1, 2, 1, 1),),
        "empty": lambda make: (make(0, 2, 4, 5),),
    }


def one_left(make):
    """A flow along which every cell but one leaves."""
    flow = make(1, 2, 9, 8, scale=0) + 30
    flow[0, :, 6, 3] = make.tensor([3.0, -0.25])
    return flow


@pytest.mark.parametrize("backend", available_backends(backward_warp))
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_backward_warp_is_grid_sample(backend, padding):
    torch.manual_seed(0)
    image, flow = torch.randn(2, 3, 11, 13, dtype=torch.float64), torch.randn(2, 2, 11, 13, dtype=torch.float64) * 5
    weight = torch.randn(2, 3, 11, 13, dtype=torch.float64)

    def sampled(image, flow):
        y, x = torch.meshgrid(torch.arange(11.0), torch.arange(13.0), indexing="ij")
        grid = torch.stack(((x + flow[:, 0]) / 6 - 1, (y + flow[:, 1]) / 5 - 1), dim=-1)
        return F.grid_sample(image, grid, padding_mode=padding, align_corners=True)

    found = []
    for function in (lambda *args: backward_warp(*args, padding), sampled):
        with on_backend(backend) as device:
            leaves = [value.clone().to(device).requires_grad_() for value in (image, flow)]
            if function is sampled:
                leaves = [value.clone().requires_grad_() for value in (image, flow)]
            out = function(*leaves)
            grads = torch.autograd.grad(out, leaves, weight.to(out.device))
            found.append([value.detach().cpu() for value in (out, *grads)])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("backend", ["torch", *available_backends(backward_warp)])
def test_backward_warp_by_whole_pixels(backend):
    image = torch.rand(1, 3, 6, 7)
    flow = torch.zeros(1, 2, 6, 7)
    flow[:, 0], flow[:, 1] = 2, -1
    with on_backend(backend) as device:
        warped = backward_warp(image.to(device), flow.to(device)).cpu()
    assert torch.equal(warped[..., 1:, :-2], image[..., :-1, 2:])
    assert warped[..., 0, :].abs().max() == 0 and warped[..., -2:].abs().max() == 0


@pytest.mark.parametrize("backend", ["torch", *available_backends(backward_warp)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_backward_warp_of_targets_that_are_nowhere(backend, bad):
    flow = torch.zeros(1, 2, 4, 5)
    flow[0, 0, 1, 2] = bad
    flow[0, 1, 3, 4] = bad
    with on_backend(backend) as device:
        image, moved = torch.rand(1, 2, 4, 5, device=device), flow.to(device).requires_grad_()
        out = backward_warp(image, moved)
        (grad,) = torch.autograd.grad(out.sum(), moved)
    expected = image.clone()
    expected[0, :, 1, 2] = expected[0, :, 3, 4] = 0
    assert torch.equal(out, expected)
    assert grad.isfinite().all() and grad[0, 0, 1, 2] == 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_backward_warp_keeps_the_layout(layout):
    image = torch.rand(2, 4, 5, 6).contiguous(memory_format=layout)
    assert backward_warp(image, torch.zeros(2, 2, 5, 6)).is_contiguous(memory_format=layout)


def test_backward_warp_does_not_depend_on_threads():
    torch.manual_seed(0)
    image, flow = torch.rand(1, 3, 23, 31), torch.randn(1, 2, 23, 31) * 4
    before = torch.get_num_threads()
    found = []
    try:
        for threads, layout in itertools.product((1, 2, 5), (torch.contiguous_format, torch.channels_last)):
            torch.set_num_threads(threads)
            leaves = [image.contiguous(memory_format=layout).requires_grad_(), flow.clone().requires_grad_()]
            out = backward_warp(*leaves)
            found.append((threads, layout, torch.autograd.grad((out * out).sum(), leaves)))
    finally:
        torch.set_num_threads(before)
    for _, layout, grads in found:
        alone = next(other for threads, same, other in found if threads == 1 and same == layout)
        assert all(torch.equal(a, b) for a, b in zip(grads, alone, strict=True))


def test_backward_warp_arguments():
    image = torch.rand(1, 3, 4, 5)
    with pytest.raises(ValueError, match=r"flow \(1, 2, 4, 6\)"):
        backward_warp(image, torch.zeros(1, 2, 4, 6))
    with pytest.raises(ValueError, match="'reflect': expected 'zeros' or 'border'"):
        backward_warp(image, torch.zeros(1, 2, 4, 5), padding="reflect")


@pytest.mark.parametrize("backend", ["torch", *available_backends(forward_warp_flow)])
def test_forward_warp_golden(backend):
    data = np.load(GOLDEN / "flow_data" / "case1.npz")
    with on_backend(backend) as device:
        warm = forward_warp_flow(torch.from_numpy(data["warm_in"])[None].to(device))[0].cpu()
    assert torch.equal(warm, torch.from_numpy(data["warm_out"]).float())


@pytest.mark.parametrize("backend", ["torch", *available_backends(forward_warp_flow)])
def test_forward_warp_of_equal_distances_takes_the_first(backend):
    flow = torch.zeros(1, 2, 8, 8)
    flow[0, 0, 3, 2] = 3.0  # lands on (3, 5), which stays
    with on_backend(backend) as device:
        moved = forward_warp_flow(flow.to(device)).cpu()
    assert moved[0, 0, 3, 5] == 3
    # Cell (3, 2) itself is empty now; (2, 2), one above, is the first of its four neighbours.
    assert moved[0, :, 3, 2].abs().max() == 0


def test_forward_warp_finds_far_cells():
    torch.manual_seed(0)
    flow = torch.randn(1, 2, 40, 61) * 3
    flow[:, 0] -= 31  # only the right half stays in the frame, and lands left
    flow[:, 1, :20] += 25
    with use_backend("torch"):
        expected = forward_warp_flow(flow)
    assert torch.equal(forward_warp_flow(flow), expected)


def test_forward_warp_arguments():
    with pytest.raises(ValueError, match="expected N×2×h×w"):
        forward_warp_flow(torch.zeros(2, 4, 5))
