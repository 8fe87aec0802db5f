"""Instance normalisation, with the ReLU that follows it."""

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

_native = NativeSource(CSRC / "normalization.cpp")
_cuda = CudaSource(CSRC / "normalization.cu")
_BAND = 512  # pixels, as in normalization.cpp


@register_op
class InstanceNorm(Op):
    """Each channel of each sample to mean 0 and variance 1 (without affine parameters or running statistics).

    Args (of the call):
        x: N×C×H×W; channels last is fastest. A plane of one pixel gives zero.
        eps: added to the variance.
        relu: clamp the result at zero.

    Returns:
        N×C×H×W in channels-last memory (from the reference: as torch leaves it).
    """

    name = "instance_norm"
    schema = "(Tensor x, float eps, bool relu) -> Tensor"
    differentiable = ("x",)
    autocast = False

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        return make(2, 5, 3, 7), 1e-5, False

    def prepare(self, x: Tensor, eps: float = 1e-5, relu: bool = False) -> tuple:  # noqa: D102
        if x.ndim != 4:
            raise ValueError(f"instance_norm: x {tuple(x.shape)}: expected N×C×H×W")
        return x, float(eps), bool(relu)

    def reference(self, x: Tensor, eps: float, relu: bool) -> Tensor:  # noqa: D102
        flat = x.flatten(2)
        y = F.layer_norm(flat, flat.shape[-1:], eps=eps).view(x.shape)
        return y.relu() if relu else y

    def fake(self, x: Tensor, eps: float, relu: bool) -> Tensor:  # noqa: D102
        return torch.empty_like(x, memory_format=torch.channels_last)

    def supports(self, backend: str, x: Tensor, eps: float, relu: bool) -> bool:
        """The reference alone serves maps that have no pixel."""
        return x.shape[2] * x.shape[3] > 0

    def _moments(self, rows: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        count, height, width, channels = rows.shape
        moments = rows.new_empty(count, 2, channels)
        parts = rows.new_empty(count, -(-height * width // _BAND), 2, channels)
        _native.call("instance_norm_moments", rows, moments, parts, count, height * width, channels, eps)
        return moments, parts

    def cpp(self, x: Tensor, eps: float, relu: bool) -> Tensor:
        """Moments in one pass over memory, the result in a second."""
        rows, y = pixel_rows(x), self.fake(x, eps, relu)
        moments, _ = self._moments(rows, eps)
        _native.call("instance_norm", rows, moments, y, *_shape(x), relu)
        return y

    def cpp_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor]:
        """The moments are computed again, which is cheaper than keeping the normalised map."""
        x, eps, relu = args
        rows, grad_x = pixel_rows(x), torch.empty_like(x, memory_format=torch.channels_last)
        moments, parts = self._moments(rows, eps)
        _native.call("instance_norm_backward", pixel_rows(grads[0]), rows, moments, grad_x, parts, *_shape(x), relu)
        return (grad_x,)

    def cuda(self, x: Tensor, eps: float, relu: bool) -> Tensor:
        """Moments by a block for 32 channels, the result by a thread an element."""
        rows, y = pixel_rows(x), self.fake(x, eps, relu)
        moments = self._cuda_moments(rows, eps)
        _cuda.launch_threads("instance_norm", x.numel(), rows, moments, y, *_shape(x), relu)
        return y

    def cuda_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor]:
        """One kernel: both means, then the gradient."""
        x, eps, relu = args
        rows, grad_x = pixel_rows(x), torch.empty_like(x, memory_format=torch.channels_last)
        moments, (count, pixels, channels) = self._cuda_moments(rows, eps), _shape(x)
        tensors = (pixel_rows(grads[0]), rows, moments, grad_x)
        _cuda.launch("instance_norm_backward", (-(-channels // 32), count), (32, 8), *tensors, pixels, channels, relu)
        return (grad_x,)

    def _cuda_moments(self, rows: Tensor, eps: float) -> Tensor:
        count, height, width, channels = rows.shape
        moments = rows.new_empty(count, 2, channels)
        grid = (-(-channels // 32), count)
        _cuda.launch("instance_norm_moments", grid, (32, 8), rows, moments, height * width, channels, eps)
        return moments


def _shape(x: Tensor) -> tuple[int, int, int]:
    """Samples, pixels, channels."""
    return x.shape[0], x.shape[2] * x.shape[3], x.shape[1]


instance_norm = InstanceNorm()
