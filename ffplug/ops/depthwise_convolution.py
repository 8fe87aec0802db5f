"""Depth-wise convolution with large kernels, and the residual GELU that goes with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.ops.build import CSRC
from ffplug.ops.contract import Op, register_op
from ffplug.ops.cuda import CudaSource
from ffplug.ops.layout import pixel_rows
from ffplug.ops.native import NativeSource, vector_lanes

_native = NativeSource(CSRC / "depthwise_convolution.cpp")
_cuda = CudaSource(CSRC / "depthwise_convolution.cu")
_RUN = 12  # outputs of a row that are worked on together, as in depthwise_convolution.cpp


@register_op
class DepthwiseConv2d(Op):
    """``activation(x + convolution(x))``: each channel with a kernel of its own, the size kept.

    Args (of the call):
        x: N×C×H×W; channels last is fastest.
        weight: C×1×k×k, k odd.
        bias: C, or None.
        residual: add ``x`` to the result of the convolution.
        activation: ``none`` or ``gelu`` (the exact one).

    Returns:
        N×C×H×W, channels last.
    """

    name = "depthwise_conv2d"
    schema = "(Tensor x, Tensor weight, Tensor? bias, bool residual, str activation) -> Tensor"
    differentiable = ("x", "weight", "bias")

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        return make(1, 3, 4, 5), make(3, 1, 3, 3), make(3), True, "gelu"

    def prepare(  # noqa: D102
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, residual: bool = False, activation: str = "none"
    ) -> tuple:
        size = weight.shape[-1]
        if x.ndim != 4 or tuple(weight.shape) != (x.shape[1], 1, size, size) or size % 2 == 0:
            raise ValueError(
                f"depthwise_conv2d: weight {tuple(weight.shape)} for x {tuple(x.shape)}: "
                "expected N×C×H×W and C×1×k×k, k odd"
            )
        if activation not in ("none", "gelu"):
            raise ValueError(f"depthwise_conv2d: activation {activation!r}: expected 'none' or 'gelu'")
        return x, weight, bias, bool(residual), activation

    def reference(  # noqa: D102
        self, x: Tensor, weight: Tensor, bias: Tensor | None, residual: bool, activation: str
    ) -> Tensor:
        y = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=x.shape[1])
        y = x + y if residual else y
        y = F.gelu(y) if activation == "gelu" else y
        return y.contiguous(memory_format=torch.channels_last)

    def fake(self, x: Tensor, *rest: object) -> Tensor:  # noqa: D102
        return torch.empty_like(x, memory_format=torch.channels_last)

    def cpp(self, x: Tensor, weight: Tensor, bias: Tensor | None, residual: bool, activation: str) -> Tensor:
        """A run of outputs at a time, its sums in registers."""
        y, rows = self.fake(x), pixel_rows(x)
        count, height, width, channels = rows.shape
        size, lanes = weight.shape[-1], vector_lanes(x.dtype)
        groups = -(-channels // lanes)
        padded = x.new_empty(count, groups, height + size - 1, width + size - 1 + _RUN, lanes)
        packed = x.new_empty(groups, size * size, lanes)
        bias = None if bias is None else bias.contiguous()
        shape = (*rows.shape, size, residual, activation == "gelu")
        _native.call("depthwise_convolution", rows, weight.contiguous(), bias, y, padded, packed, *shape)
        return y

    def cuda(self, x: Tensor, weight: Tensor, bias: Tensor | None, residual: bool, activation: str) -> Tensor:
        """One thread an output."""
        y, rows = self.fake(x), pixel_rows(x)
        bias = None if bias is None else bias.contiguous()
        shape = (*rows.shape, weight.shape[-1], residual, activation == "gelu")
        tensors = (rows, weight.contiguous(), bias, y)
        _cuda.launch_threads("depthwise_convolution", y.numel(), *tensors, *shape)
        return y


@register_op
class AddGELU(Op):
    """``gelu(a + b)`` in one pass, the exact GELU.

    Args (of the call):
        a: any shape.
        b: the same shape.

    Returns:
        Of the shape of ``a``, and of its memory layout where both are dense and laid out alike.
    """

    name = "add_gelu"
    schema = "(Tensor a, Tensor b) -> Tensor"
    differentiable = ("a", "b")

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        return make(3, 7), make(3, 7)

    def prepare(self, a: Tensor, b: Tensor) -> tuple:  # noqa: D102
        if a.shape != b.shape:
            raise ValueError(f"add_gelu: a {tuple(a.shape)}, b {tuple(b.shape)}: expected equal shapes")
        return a, b

    def reference(self, a: Tensor, b: Tensor) -> Tensor:  # noqa: D102
        return self._dense(F.gelu(a + b), a)

    def fake(self, a: Tensor, b: Tensor) -> Tensor:  # noqa: D102
        return torch.empty_like(a, memory_format=self._layout(a))

    def cpp(self, a: Tensor, b: Tensor) -> Tensor:
        """One pass."""
        a, b = self._dense(a, a), self._dense(b, a)
        y = self.fake(a, b)
        _native.call("add_gelu", a, b, y, y.numel())
        return y

    def cuda(self, a: Tensor, b: Tensor) -> Tensor:
        """One thread an element."""
        a, b = self._dense(a, a), self._dense(b, a)
        y = self.fake(a, b)
        _cuda.launch_threads("add_gelu", y.numel(), a, b, y, y.numel())
        return y

    @staticmethod
    def _layout(x: Tensor) -> torch.memory_format:
        last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        return torch.channels_last if last else torch.contiguous_format

    def _dense(self, x: Tensor, like: Tensor) -> Tensor:
        return x.contiguous(memory_format=self._layout(like))


depthwise_conv2d = DepthwiseConv2d()
add_gelu = AddGELU()
