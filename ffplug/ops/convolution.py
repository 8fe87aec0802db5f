"""Dense convolutions with small kernels, by Winograd's minimal filtering on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.ops.build import CSRC
from ffplug.ops.contract import Op, register_op
from ffplug.ops.layout import pixel_rows
from ffplug.ops.native import NativeSource, vector_lanes

_native = NativeSource(CSRC / "convolution.cpp")
KERNELS = {(3, 3): 36, (1, 5): 8, (5, 1): 8}  # kernel size: points of a tile
# In place: they follow a fresh result.
ACTIVATIONS = {"none": lambda y: y, "relu": torch.relu_, "sigmoid": torch.sigmoid_, "tanh": torch.tanh_}


def pack_convolution(weight: Tensor) -> Tensor:
    """Bring a weight O×C×kh×kw to the form that :class:`WinogradConv2d` multiplies with, for use in several calls.

    The form depends on the machine's vector width: it is for this process, not for a file.
    """
    outputs, inputs, *kernel = weight.shape
    block = 4 * vector_lanes(weight.dtype)
    packed = weight.new_empty(KERNELS[tuple(kernel)], -(-outputs // block), inputs, block)
    _native.call("pack_convolution", weight.detach().contiguous(), packed, outputs, inputs, *kernel)
    return packed


@register_op
class WinogradConv2d(Op):
    """A 3×3, 1×5 or 5×1 convolution of stride 1 that keeps the size, an addend and an activation.

    The C++ backend takes 2.25 (3×3: 4) times fewer multiplications than the definition, by tiles of 4 (4×4) outputs
    (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016); its rounding error is some 1e-5 of the
    result's deviation in float32. On CUDA the reference goes to cuDNN, which has such kernels itself.

    Args (of the call):
        x: N×C×H×W; channels last is fastest.
        weight: O×C×kh×kw.
        bias: O, or None.
        addend: N×O×H×W, added before the activation, or None.
        activation: ``none``, ``relu``, ``sigmoid`` or ``tanh``.
        packed: :func:`pack_convolution` of the weight, or None.

    Returns:
        N×O×H×W, channels last.
    """

    name = "winograd_conv2d"
    schema = "(Tensor x, Tensor weight, Tensor? bias, Tensor? addend, str activation, Tensor? packed) -> Tensor"
    differentiable = ("x", "weight", "bias", "addend")
    tolerance = 1e-4

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        return make(1, 2, 3, 5), make(3, 2, 3, 3, scale=0.25), make(3), make(1, 3, 3, 5), "tanh"

    def prepare(  # noqa: D102
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        addend: Tensor | None = None,
        activation: str = "none",
        packed: Tensor | None = None,
    ) -> tuple:
        if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != weight.shape[1]:
            raise ValueError(
                f"winograd_conv2d: weight {tuple(weight.shape)} for x {tuple(x.shape)}: expected N×C×H×W and O×C×kh×kw"
            )
        if tuple(weight.shape[2:]) not in KERNELS:
            raise ValueError(f"winograd_conv2d: kernel {tuple(weight.shape[2:])}: expected one of {list(KERNELS)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"winograd_conv2d: activation {activation!r}: expected one of {', '.join(ACTIVATIONS)}")
        if addend is not None and addend.shape != (x.shape[0], weight.shape[0], *x.shape[2:]):
            raise ValueError(
                f"winograd_conv2d: addend {tuple(addend.shape)}: expected {(x.shape[0], weight.shape[0], *x.shape[2:])}"
            )
        return x, weight, bias, addend, activation, packed

    def reference(  # noqa: D102
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        addend: Tensor | None,
        activation: str,
        packed: Tensor | None,
    ) -> Tensor:
        y = F.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2))
        y = ACTIVATIONS[activation](y if addend is None else y + addend)
        return y.contiguous(memory_format=torch.channels_last)

    def fake(self, x: Tensor, weight: Tensor, *rest: object) -> Tensor:  # noqa: D102
        shape = (x.shape[0], weight.shape[0], *x.shape[2:])
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

    def cpp(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        addend: Tensor | None,
        activation: str,
        packed: Tensor | None,
    ) -> Tensor:
        """Blocks of tiles, each transformed, multiplied and transformed back while it lies in the cache."""
        y = self.fake(x, weight)
        packed = pack_convolution(weight) if packed is None else packed
        rows, sums = (None if t is None else pixel_rows(t) for t in (x, addend))
        count, _, height, width = x.shape
        shape = (count, height, width, *weight.shape[1::-1], *weight.shape[2:])
        bias = None if bias is None else bias.contiguous()
        _native.call("convolution", rows, packed, bias, sums, y, *shape, list(ACTIVATIONS).index(activation))
        return y


winograd_conv2d = WinogradConv2d()
