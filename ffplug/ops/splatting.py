"""Forward splatting: pixels thrown along a flow, with bilinear weights, and the ways to share a target among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ffplug.ops.contract import Op, register_op
from ffplug.ops.warping import (
    check_image_and_flow,
    corners,
    gather,
    launch,
    memory_format,
    native_call,
    scatter,
    slope,
)

_MODES = ("sum", "average", "linear", "softmax")
_EPSILONS = ("add", "zero", "clip")
_EPSILON = 1e-7


@register_op
class SplatSum(Op):
    """Throw every pixel to ``p + flow(p)`` and add up, with bilinear weights, what arrives at each target.

    Targets that are not finite, and corners outside the image, receive nothing. The adjoint of ``backward_warp`` with
    zero padding.

    Args (of the call):
        image: N×C×H×W, channels first or last.
        flow: N×2×H×W in pixels.

    Returns:
        N×C×H×W, in the image's layout.
    """

    name = "splat_sum"
    schema = "(Tensor image, Tensor flow) -> Tensor"
    differentiable = ("image", "flow")
    nondeterministic = frozenset({"cuda"})

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        return make(2, 2, 3, 5), make(2, 2, 3, 5, scale=2)

    def prepare(self, image: Tensor, flow: Tensor) -> tuple:  # noqa: D102
        check_image_and_flow(self.name, image, flow)
        return image, flow.to(image.dtype)

    def reference(self, image: Tensor, flow: Tensor) -> Tensor:  # noqa: D102
        count, channels, height, width = image.shape
        pixels = image.flatten(2).transpose(0, 1).flatten(1)
        sample = torch.arange(count, device=image.device)[:, None] * (height * width)
        total = torch.zeros_like(pixels)
        for place, weight in corners(flow, border=False):
            weight = weight.flatten()
            # What reaches nothing adds nothing, be it infinite.
            share = torch.where((weight != 0) | pixels.isfinite(), pixels, 0.0) * weight
            total = total.index_add(1, (place + sample).flatten(), share)
        total = total.view(channels, count, height, width).transpose(0, 1)
        return total.contiguous(memory_format=memory_format(image))

    def fake(self, image: Tensor, flow: Tensor) -> Tensor:  # noqa: D102
        return torch.empty_like(image, memory_format=memory_format(image))

    def cpp(self, image: Tensor, flow: Tensor) -> Tensor:
        """By bands of target rows, without atomics."""
        return scatter(native_call, image, flow, False)

    def cpp_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Samples the gradient where the pixels went."""
        return self._backward(native_call, needs, grads[0], *args)

    def cuda(self, image: Tensor, flow: Tensor) -> Tensor:
        """One thread for four channels of a pixel, atomic additions."""
        return scatter(launch, image, flow, False)

    def cuda_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Samples the gradient where the pixels went; no atomics."""
        return self._backward(launch, needs, grads[0], *args)

    def _backward(self, run, needs: Sequence[bool], grad: Tensor, image: Tensor, flow: Tensor) -> tuple:
        return (
            gather(run, grad, flow, False) if needs[0] else None,
            slope(run, grad, flow, image, False) if needs[1] else None,
        )


splat_sum = SplatSum()


def forward_splat(
    image: Tensor, flow: Tensor, metric: Tensor | None = None, mode: str = "sum", epsilon: str = "add"
) -> Tensor:
    """Throw every pixel along its flow; where several land, share the target by ``mode``.

    With bilinear weights b of the pixels x that reach a target, and their metric z: ``sum`` gives Σ b·x, ``average``
    Σ b·x / Σ b, ``linear`` Σ b·z·x / Σ b·z and ``softmax`` Σ b·eᶻ·x / Σ b·eᶻ (Niklaus and Liu, Softmax Splatting for
    Video Frame Interpolation, section 3). Where nothing lands the result is 0. Targets that are not finite are dropped.

    The softmax is computed without overflow for any metric. As e⁻ᶻ vanishes beside it, a metric with a maximum above 0
    shrinks the epsilon as the formula does; a maximum below 0 counts as 0, so that low metrics do not fade.

    Args:
        image: N×C×H×W.
        flow: N×2×H×W in pixels.
        metric: N×1×H×W, importance for ``linear`` (positive) and ``softmax``; the other modes take none.
        mode: ``sum``, ``average``, ``linear`` or ``softmax``.
        epsilon: what keeps the denominator from 0: ``add`` 1e-7, ``zero`` (0 becomes 1) or ``clip`` (at least 1e-7).

    Returns:
        N×C×H×W.

    Raises:
        ValueError: an unknown mode or epsilon, a metric of another shape, missing, or given where the mode has none.
    """
    if mode not in _MODES or epsilon not in _EPSILONS:
        raise ValueError(
            f"forward_splat: mode {mode!r}, epsilon {epsilon!r}: expected one of {', '.join(_MODES)} and one of "
            f"{', '.join(_EPSILONS)}"
        )
    check_image_and_flow("forward_splat", image, flow)
    if mode in ("sum", "average"):
        if metric is not None:
            raise ValueError(f"forward_splat: mode {mode!r} takes no metric; give one with 'linear' or 'softmax'")
        if mode == "sum":
            return splat_sum(image, flow)
    expected = (image.shape[0], 1, *image.shape[2:])
    given = None if metric is None else tuple(metric.shape)
    if mode != "average" and given != expected:
        raise ValueError(f"forward_splat: metric {given} for image {tuple(image.shape)}: expected {expected}")
    # Sums of many weights are taken in float32 at least.
    wide = torch.promote_types(image.dtype, torch.float32)
    image_wide, scale = image.to(wide), 1.0
    if mode == "average":
        weighted, weight = image_wide, image_wide.new_ones(expected)
    elif mode == "linear":
        weight = metric.to(wide)
        weighted = image_wide * weight
    else:
        highest = metric.detach().to(wide).flatten(1).amax(dim=1).view(-1, 1, 1, 1) if image.numel() else 0.0
        weight = (metric.to(wide) - highest).exp()
        weighted = image_wide * weight
        scale = (-highest).exp().clamp(max=1) if image.numel() else 1.0
    total = splat_sum(torch.cat((weighted, weight), dim=1), flow)
    value, share = total[:, :-1], total[:, -1:]
    if epsilon == "add":
        share = share + _EPSILON * scale
    elif epsilon == "clip":
        share = torch.maximum(share, share.new_tensor(_EPSILON) * scale)
    return (value / torch.where(share == 0, 1.0, share)).to(image.dtype)
