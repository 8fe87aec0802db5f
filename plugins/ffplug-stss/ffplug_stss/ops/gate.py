"""The gate of a gated convolution, in one pass over memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ffplug.ops import Op, register_op
from ffplug.ops.cuda import CudaSource
from ffplug.ops.layout import pixel_rows
from ffplug.ops.native import NativeSource

_CSRC = Path(__file__).parent / "csrc"
_native = NativeSource(_CSRC / "gate.cpp")
_cuda = CudaSource(_CSRC / "gate.cu")


@register_op
class ApplyGate(Op):
    """All channels but the last times the sigmoid of the last one, and a ReLU if asked for.

    It follows the convolution that gives features and gate at once (gated convolution: Yu et al., Free-Form Image
    Inpainting with Gated Convolution, 2019, here with one gate for all channels).

    Args (of the call):
        x: N×(C+1)×H×W; channels last is fastest.
        relu: clamp the result at zero.

    Returns:
        N×C×H×W, channels last.
    """

    name = "apply_gate"
    schema = "(Tensor x, bool relu) -> Tensor"
    differentiable = ("x",)

    def example(self, make: Callable[..., Tensor]) -> tuple[Tensor, bool]:
        """Small arguments, for the checks."""
        return make(2, 4, 3, 5), False

    def prepare(self, x: Tensor, relu: bool = False) -> tuple[Tensor, bool]:
        """Check the arguments of a call."""
        if x.ndim != 4 or x.shape[1] < 2:
            raise ValueError(f"apply_gate: x {tuple(x.shape)}: expected N×(C+1)×H×W with C of at least 1")
        return x, bool(relu)

    def reference(self, x: Tensor, relu: bool) -> Tensor:
        """The definition, in PyTorch."""
        y = x[:, :-1] * x[:, -1:].sigmoid()
        return (y.relu() if relu else y).contiguous(memory_format=torch.channels_last)

    def fake(self, x: Tensor, relu: bool) -> Tensor:
        """An empty result of the right shape, type and layout."""
        shape = (x.shape[0], x.shape[1] - 1, *x.shape[2:])
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

    def cpp(self, x: Tensor, relu: bool) -> Tensor:
        """A pixel after the other, its channels in vectors."""
        out = self.fake(x, relu)
        _native.call("apply_gate", pixel_rows(x), out, *_shape(x), relu)
        return out

    def cpp_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], x: Tensor, relu: bool
    ) -> tuple[Tensor]:
        """Features' and gate's gradient in one pass."""
        grad_x = torch.empty(x.shape, dtype=x.dtype, memory_format=torch.channels_last)
        _native.call("apply_gate_backward", pixel_rows(grads[0]), pixel_rows(x), grad_x, *_shape(x), relu)
        return (grad_x,)

    def cuda(self, x: Tensor, relu: bool) -> Tensor:
        """One thread a pixel."""
        out = self.fake(x, relu)
        pixels, channels = _shape(x)
        _cuda.launch_threads("apply_gate", pixels, pixel_rows(x), out, pixels, channels, relu)
        return out

    def cuda_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], x: Tensor, relu: bool
    ) -> tuple[Tensor]:
        """One thread a pixel; no atomics, so equal calls give equal bits."""
        grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        pixels, channels = _shape(x)
        tensors = (pixel_rows(grads[0]), pixel_rows(x), grad_x)
        _cuda.launch_threads("apply_gate_backward", pixels, *tensors, pixels, channels, relu)
        return (grad_x,)


def _shape(x: Tensor) -> tuple[int, int]:
    """Pixels, and channels of the result."""
    return x.shape[0] * x.shape[2] * x.shape[3], x.shape[1] - 1


apply_gate = ApplyGate()
