"""Convolution at the pixels of a mask."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.ops.build import CSRC
from ffplug.ops.contract import Op, register_op, requested_backend
from ffplug.ops.convolution import _native as _winograd
from ffplug.ops.convolution import pack_convolution
from ffplug.ops.cuda import CudaSource
from ffplug.ops.layout import pixel_rows
from ffplug.ops.native import NativeSource, problem, vector_lanes

_native = NativeSource(CSRC / "sparse_convolution.cpp")
_cuda = CudaSource(CSRC / "sparse_convolution.cu")
_WINOGRAD_TILE = 4  # side of its tiles
_WINOGRAD_CHANNELS = 16  # least inputs and outputs for which its transforms pay
_WINOGRAD_SHARE = 0.4  # and least share of active pixels in the tiles that hold any
_TILE = 8  # side of the tiles that the GPU kernels go by
_BUFFERS = 6  # inputs that the GPU kernels take; further ones are concatenated


def active_pixels(mask: Tensor) -> Tensor:
    """List a mask's pixels in raster order, for several layers that share the mask.

    Args:
        mask: N×1×H×W bool.

    Returns:
        int32 positions in the flattened mask.
    """
    if mask.device.type != "cpu" or problem() is not None or requested_backend() == "torch":
        return mask.flatten().nonzero().flatten().int()
    mask = mask.contiguous()
    # The kernel writes each position before it knows whether it counts: one more.
    pixels, found = mask.new_empty(mask.numel() + 1, dtype=torch.int32), torch.empty((), dtype=torch.int64)
    _native.call("active_pixels", mask, pixels, found, mask.numel(), dtype=torch.float32)
    return pixels[: int(found)]


def pack_sparse_convolution(weight: Tensor) -> Tensor:
    """Bring a weight O×C×k×k to the forms that the C++ backend multiplies with, for use in several calls.

    The forms depend on the machine's vector width: they are for this process, not for a file.
    """
    if weight.shape[2] == 1:
        return _pack_direct(weight)
    return torch.cat((_pack_direct(weight), pack_convolution(weight).flatten()))


def _pack_direct(weight: Tensor) -> Tensor:
    outputs, inputs, side, _ = weight.shape
    packed = weight.new_empty(_direct_size(weight))
    _native.call("pack_sparse_convolution", weight.detach().contiguous(), packed, outputs, inputs, side * side)
    return packed


def _direct_size(weight: Tensor) -> int:
    lanes = vector_lanes(weight.dtype)
    return -(-weight.shape[0] // lanes) * lanes * weight[0].numel()


def _active_tiles(mask: Tensor) -> Tensor:
    """Positions of the tiles of 4×4 pixels that hold an active one, in raster order."""
    count, _, height, width = mask.shape
    tiles = mask.new_empty(count * -(-height // _WINOGRAD_TILE) * -(-width // _WINOGRAD_TILE), dtype=torch.int32)
    found = torch.empty((), dtype=torch.int64)
    _winograd.call("active_tiles", mask, tiles, found, count, height, width, dtype=torch.float32)
    return tiles[: int(found)]


@register_op
class SparseConv2d(Op):
    """A 3×3 or 1×1 convolution of stride 1 at the pixels of a mask, bias and PReLU fused, channels last.

    With several inputs it is the convolution of their concatenation, which is never made. Inputs count as they are,
    also outside the mask. The time is nearly proportional to the number of active pixels. In C++ a 3×3 convolution
    goes by Winograd's algorithm where active pixels lie close together, with its rounding error (see
    :class:`ffplug.ops.convolution.WinogradConv2d`).

    Args (of the call):
        x: N×C×H×W; channels last is fastest.
        weight: O×ΣC×k×k, k = 1 or 3; zeros surround the map.
        mask: N×1×H×W bool, True where the convolution is wanted.
        bias: O, or None.
        slope: O or 1 slopes of the PReLU, or None for no activation.
        outside: what stands outside the mask: ``zero``, or ``bias``: the activation of the bias, which the convolution
            would give where its inputs are zero.
        more: further inputs N×C'×H×W, whose channels follow those of x. A list has no gradient: where one is wanted,
            the inputs are concatenated.
        active: :func:`active_pixels` of the mask, or None; for the C++ backend.
        packed: :func:`pack_sparse_convolution` of the weight, or None; for the C++ backend.

    Returns:
        N×O×H×W, channels last.
    """

    name = "sparse_conv2d"
    schema = (
        "(Tensor x, Tensor weight, Tensor mask, Tensor? bias, Tensor? slope, str outside, Tensor[] more,"
        " Tensor? active, Tensor? packed) -> Tensor"
    )
    differentiable = ("x", "weight", "bias", "slope")
    half = frozenset({"triton"})
    order = {"cpu": ("cpp", "triton"), "cuda": ("triton", "cuda")}  # noqa: RUF012

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        active = make.integers(2, 1, 5, 6, high=2).bool()
        return make(2, 5, 5, 6), make(7, 5, 3, 3, scale=0.3), active, make(7), make.uniform(7, low=0.1, high=0.4)

    def prepare(  # noqa: D102
        self,
        x: Tensor,
        weight: Tensor,
        mask: Tensor,
        bias: Tensor | None = None,
        slope: Tensor | None = None,
        outside: str = "zero",
        more: Sequence[Tensor] = (),
        active: Tensor | None = None,
        packed: Tensor | None = None,
    ) -> tuple:
        channels = x.shape[1] + sum(item.shape[1] for item in more)
        side = tuple(weight.shape[2:])
        if x.ndim != 4 or weight.ndim != 4 or weight.shape[1] != channels or side not in ((1, 1), (3, 3)):
            raise ValueError(
                f"sparse_conv2d: weight {tuple(weight.shape)} for {channels} input channels: expected O×{channels}×k×k "
                f"with k = 1 or 3, and inputs N×C×H×W"
            )
        for item in more:
            if item.ndim != 4 or (item.shape[0], *item.shape[2:]) != (x.shape[0], *x.shape[2:]):
                raise ValueError(f"sparse_conv2d: input {tuple(item.shape)} in `more` beside x {tuple(x.shape)}")
        if mask.dtype != torch.bool or tuple(mask.shape) != (x.shape[0], 1, *x.shape[2:]):
            raise ValueError(
                f"sparse_conv2d: mask {tuple(mask.shape)} of {mask.dtype}: expected "
                f"{(x.shape[0], 1, *x.shape[2:])} of torch.bool"
            )
        for name, value, sizes in (("bias", bias, weight.shape[:1]), ("slope", slope, (1, weight.shape[0]))):
            if value is not None and (value.ndim != 1 or value.shape[0] not in sizes):
                raise ValueError(f"sparse_conv2d: {name} {tuple(value.shape)}: expected {' or '.join(map(str, sizes))}")
        if outside not in ("zero", "bias"):
            raise ValueError(f"sparse_conv2d: outside={outside!r}: expected 'zero' or 'bias'")
        if more and torch.is_grad_enabled() and any(item.requires_grad for item in (x, *more)):
            x, more = torch.cat((x, *more), dim=1), ()
        return x, weight, mask, bias, slope, outside, list(more), active, packed

    def reference(  # noqa: D102
        self,
        x: Tensor,
        weight: Tensor,
        mask: Tensor,
        bias: Tensor | None,
        slope: Tensor | None,
        outside: str,
        more: Sequence[Tensor],
        active: Tensor | None,
        packed: Tensor | None,
    ) -> Tensor:
        y = F.conv2d(torch.cat((x, *more), dim=1), weight, padding=weight.shape[2] // 2)
        addend = y.new_zeros(1) if bias is None else bias.view(-1, 1, 1)
        y = (y + addend).where(mask, addend if outside == "bias" else 0)
        y = y if slope is None else F.prelu(y, slope)
        return y.contiguous(memory_format=torch.channels_last)

    def fake(self, x: Tensor, weight: Tensor, *rest: object) -> Tensor:  # noqa: D102
        shape = (x.shape[0], weight.shape[0], *x.shape[2:])
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)

    def supports(self, backend: str, *args: object) -> bool:  # noqa: D102
        if backend != "triton":
            return True
        # Triton's products are those of the tensor cores; on a CPU its interpreter runs them, for tests.
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        return args[0].dtype != torch.float64 and (args[0].is_cuda or interpreted)

    def cpp(
        self,
        x: Tensor,
        weight: Tensor,
        mask: Tensor,
        bias: Tensor | None,
        slope: Tensor | None,
        outside: str,
        more: Sequence[Tensor],
        active: Tensor | None,
        packed: Tensor | None,
    ) -> Tensor:
        """Where active pixels lie close together, Winograd's algorithm on their tiles of 4×4; else pixel by pixel.

        Pixel by pixel, a tap's weights stay in the cache while all pixels of a chunk use them.
        """
        y, mask = self.fake(x, weight), mask.contiguous()
        active = active_pixels(mask) if active is None else active
        buffers = [pixel_rows(item) for item in (x, *more)]
        (outputs, inputs, side, _), (count, _, height, width) = weight.shape, x.shape
        (bias, slope), around = _per_output(x, weight, bias, slope, outside)
        size = (count, height, width)
        addresses = torch.tensor([item.data_ptr() for item in buffers])
        channels = torch.tensor([item.shape[3] for item in buffers])
        if side == 3 and min(inputs, outputs) >= _WINOGRAD_CHANNELS:
            tiles = _active_tiles(mask)
            if active.numel() > _WINOGRAD_SHARE * _WINOGRAD_TILE**2 * tiles.numel():
                packed = pack_convolution(weight) if packed is None else packed[_direct_size(weight) :]
                tensors = (addresses, channels, packed, mask, tiles, bias, slope, around, y)
                _winograd.call("masked_convolution", *tensors, len(buffers), tiles.numel(), *size, outputs)
                return y
        packed = _pack_direct(weight) if packed is None else packed
        padding = (0, -outputs % vector_lanes(x.dtype))
        rows = [None if row is None else F.pad(row, padding) for row in (bias, slope)]
        tensors = (addresses, channels, active, packed, *rows, around, y)
        _native.call("sparse_convolution", *tensors, len(buffers), active.numel(), *size, outputs, side)
        return y

    def cuda(
        self,
        x: Tensor,
        weight: Tensor,
        mask: Tensor,
        bias: Tensor | None,
        slope: Tensor | None,
        outside: str,
        more: Sequence[Tensor],
        active: Tensor | None,
        packed: Tensor | None,
    ) -> Tensor:
        """A block of threads a tile of 8×8 pixels and 64 output channels; tiles without an active pixel end at once."""
        y, (rows, around) = self.fake(x, weight), _per_output(x, weight, bias, slope, outside)
        buffers = _buffers(x, more)
        channels = [item.shape[3] for item in buffers] + [0] * (_BUFFERS - len(buffers))
        tensors = (*buffers, *[None] * (_BUFFERS - len(buffers)), mask.contiguous(), _taps_first(weight), *rows, around)
        shape = (*channels, *x.shape[2:], weight.shape[0], weight.shape[2])
        _cuda.launch("sparse_convolution", (_tiles(x), -(-weight.shape[0] // 64)), 256, *tensors, y, *shape)
        return y

    def triton(
        self,
        x: Tensor,
        weight: Tensor,
        mask: Tensor,
        bias: Tensor | None,
        slope: Tensor | None,
        outside: str,
        more: Sequence[Tensor],
        active: Tensor | None,
        packed: Tensor | None,
    ) -> Tensor:
        """The same by tensor cores: TF32 for float32 where cuDNN may take it, sums in float32 always."""
        from ffplug.ops.triton_sparse_convolution import sparse_convolution

        y, (rows, around) = self.fake(x, weight), _per_output(x, weight, bias, slope, outside)
        buffers = tuple(_buffers(x, [item.to(x.dtype) for item in more]))
        outputs = weight.shape[0]
        block = 32 if outputs <= 32 else 64
        grid = (_tiles(x), -(-outputs // block))
        with torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext():
            if 0 not in grid:
                sparse_convolution[grid](
                    buffers,
                    tuple(item.shape[3] for item in buffers),
                    mask.contiguous().view(torch.uint8),
                    _taps_first(weight).to(x.dtype),
                    *(around if row is None else row for row in rows),
                    around,
                    y,
                    *x.shape[2:],
                    outputs,
                    TAPS=weight.shape[2],
                    BUFFERS=len(buffers),
                    BIAS=bias is not None,
                    SLOPE=slope is not None,
                    OUTPUTS=block,
                    DEPTH=32,
                    PRECISION="tf32" if torch.backends.cudnn.allow_tf32 else "ieee",
                )
        return y


def _buffers(x: Tensor, more: Sequence[Tensor]) -> list[Tensor]:
    """The inputs as N×H×W×C, at most as many as the GPU kernels take."""
    inputs = [x, *more]
    if len(inputs) > _BUFFERS:
        inputs = [*inputs[: _BUFFERS - 1], torch.cat(inputs[_BUFFERS - 1 :], dim=1)]
    return [pixel_rows(item) for item in inputs]


def _taps_first(weight: Tensor) -> Tensor:
    """O×C×k×k -> k×k×C×O"""
    return weight.permute(2, 3, 1, 0).contiguous()


def _tiles(x: Tensor) -> int:
    return x.shape[0] * -(-x.shape[2] // _TILE) * -(-x.shape[3] // _TILE)


def _per_output(
    x: Tensor, weight: Tensor, bias: Tensor | None, slope: Tensor | None, outside: str
) -> tuple[tuple[Tensor | None, Tensor | None], Tensor]:
    """Bias and slope of every output channel, and its value outside the mask."""
    outputs = weight.shape[0]
    if outside == "zero" or bias is None:
        around = x.new_zeros(outputs)
    else:
        around = bias if slope is None else F.prelu(bias[None], slope)[0]
    bias, slope = (None if row is None else row.expand(outputs).contiguous() for row in (bias, slope))
    return (bias, slope), around.contiguous()


sparse_conv2d = SparseConv2d()
