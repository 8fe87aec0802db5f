"""Convex upsampling of low-resolution flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.ops.build import CSRC
from ffplug.ops.contract import Op, register_op
from ffplug.ops.cuda import CudaSource
from ffplug.ops.layout import pixel_rows
from ffplug.ops.native import NativeSource

_native = NativeSource(CSRC / "upsampling.cpp")
_cuda = CudaSource(CSRC / "upsampling.cu")


@register_op
class ConvexUpsample(Op):
    """Each fine pixel is a convex combination of the 3×3 coarse neighbours (RAFT, section 3.3).

    Args (of the call):
        flow: low-resolution flow N×2×h×w, in cells.
        logits: N×(9·factor²)×h×w; channel ``(k·factor + i)·factor + j`` weighs neighbour k (row-major 3×3, zero
            outside) for the fine pixel (i, j) of a cell, before the softmax over k. Channels last is fastest.
        factor: ratio of the resolutions.

    Returns:
        Flow N×2×(factor·h)×(factor·w), in fine pixels, float32 (float64 where the arguments are).
    """

    name = "convex_upsample"
    schema = "(Tensor flow, Tensor logits, int factor) -> Tensor"
    differentiable = ("flow", "logits")

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        return make(2, 2, 3, 5), make(2, 9 * 9, 3, 5), 3

    def prepare(self, flow: Tensor, logits: Tensor, factor: int = 8) -> tuple:  # noqa: D102
        count, channels, height, width = flow.shape
        expected = (count, 9 * factor * factor, height, width)
        if channels != 2 or tuple(logits.shape) != expected:
            raise ValueError(
                f"convex_upsample: logits {tuple(logits.shape)} for flow {tuple(flow.shape)} and factor {factor}: "
                f"expected N×2×h×w flow and logits {expected}"
            )
        # The softmax of half-precision logits is taken in float32, as the published networks take it.
        dtype = torch.promote_types(torch.promote_types(flow.dtype, logits.dtype), torch.float32)
        return flow.to(dtype), logits.to(dtype), factor

    def reference(self, flow: Tensor, logits: Tensor, factor: int) -> Tensor:  # noqa: D102
        count, channels, height, width = flow.shape
        weight = logits.reshape(count, 1, 9, factor * factor, height, width).softmax(dim=2)
        patch = F.unfold(factor * flow, 3, padding=1).view(count, channels, 9, 1, height, width)
        fine = (weight * patch).sum(dim=2)
        fine = fine.view(count, channels, factor, factor, height, width).permute(0, 1, 4, 2, 5, 3)
        return fine.reshape(count, channels, factor * height, factor * width)

    def fake(self, flow: Tensor, logits: Tensor, factor: int) -> Tensor:  # noqa: D102
        count, channels, height, width = flow.shape
        return flow.new_empty(count, channels, factor * height, factor * width)

    def cpp(self, flow: Tensor, logits: Tensor, factor: int) -> Tensor:
        """One pass over the cells."""
        fine = self.fake(flow, logits, factor)
        _native.call("convex_upsample", flow.contiguous(), pixel_rows(logits), fine, *_shape(flow), factor)
        return fine

    def cpp_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both gradients in one pass, the softmax computed again."""
        flow, logits, factor = args
        grad_flow, grad_rows = flow.new_empty(flow.shape), torch.empty_like(rows := pixel_rows(logits))
        scratch = rows.new_empty(*rows.shape[:3], 9, 2)
        tensors = (grads[0].contiguous(), flow.contiguous(), rows, grad_flow, grad_rows, scratch)
        _native.call("convex_upsample_backward", *tensors, *_shape(flow), factor)
        return grad_flow, grad_rows.permute(0, 3, 1, 2)

    def cuda(self, flow: Tensor, logits: Tensor, factor: int) -> Tensor:
        """One thread a fine pixel."""
        fine = self.fake(flow, logits, factor)
        tensors = (flow.contiguous(), pixel_rows(logits), fine)
        _cuda.launch_threads("convex_upsample", fine.numel() // 2, *tensors, *_shape(flow), factor)
        return fine

    def cuda_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradient of the logits by a thread each, that of flow by a warp a cell; no atomics."""
        flow, logits, factor = args
        grad, rows = grads[0].contiguous(), pixel_rows(logits)
        shape, cells = _shape(flow), flow.numel() // 2
        grad_flow = grad_rows = None
        if needs[0]:
            grad_flow = flow.new_empty(flow.shape)
            kernel = "convex_upsample_flow_backward"
            _cuda.launch_threads(kernel, cells * 32, grad, rows, grad_flow, *shape, factor)
        if needs[1]:
            grad_rows = torch.empty_like(rows)
            kernel, threads = "convex_upsample_logits_backward", cells * factor * factor
            _cuda.launch_threads(kernel, threads, grad, flow.contiguous(), rows, grad_rows, *shape, factor)
            grad_rows = grad_rows.permute(0, 3, 1, 2)
        return grad_flow, grad_rows


def _shape(flow: Tensor) -> tuple[int, int, int]:
    return flow.shape[0], flow.shape[2], flow.shape[3]


convex_upsample = ConvexUpsample()
