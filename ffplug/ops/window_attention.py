"""Attention of every pixel to a window around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.ops.build import CSRC
from ffplug.ops.contract import Op, register_op
from ffplug.ops.cuda import CudaSource
from ffplug.ops.native import NativeSource

_native = NativeSource(CSRC / "window_attention.cpp")
_cuda = CudaSource(CSRC / "window_attention.cu")
NORMALIZATIONS = ("softmax", "relu", "none")
BORDERS = ("zeros", "exclude")
_MAX_RADIUS = 4  # of the CUDA kernels
_BLOCK = (32, 8)  # pixels and threads a pixel of the CUDA kernels


@register_op
class LocalWindowAttention(Op):
    """Weighted sum of the values in a window, weighed by products of the pixel's query with the window's keys.

    ``A(p) = Σ_o w(p, o) value(p + o)`` over the (2·radius+1)² offsets ``o``, from the scores
    ``s(p, o) = scale · <query(p), key(p + o)>``; nothing is unfolded. The weights are

    * ``softmax``: the softmax of the scores over o;
    * ``relu``: ``max(s, 0) / max(Σ max(s, 0), eps)``, linear attention that gives zero where nothing is alike (STSS,
      AAAI 2024, with keys of unit length times a validity mask);
    * ``none``: the scores themselves.

    Args (of the call):
        query: N×C×H×W.
        key: N×C×H×W.
        value: N×D×H×W.
        radius: of the window, in steps of ``dilation``.
        dilation: distance of neighbouring offsets in pixels.
        scale: factor of the products.
        normalization: ``softmax``, ``relu`` or ``none``.
        border: keys and values outside the map are ``zeros``, which take their share of a softmax (as with a
            zero-padded unfold), or are left out of it (``exclude``).
        eps: least denominator of ``relu``.

    Returns:
        N×D×H×W.
    """

    name = "local_window_attention"
    schema = (
        "(Tensor query, Tensor key, Tensor value, int radius, int dilation, float scale, str normalization, str border,"
        " float eps) -> Tensor"
    )
    differentiable = ("query", "key", "value")

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        return make(2, 3, 4, 5, scale=0.5), make(2, 3, 4, 5, scale=0.5), make(2, 5, 4, 5, scale=0.5), 1

    def prepare(  # noqa: D102
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        radius: int,
        dilation: int = 1,
        scale: float = 1.0,
        normalization: str = "softmax",
        border: str = "zeros",
        eps: float = 1e-6,
    ) -> tuple:
        if query.ndim != 4 or key.shape != query.shape:
            raise ValueError(
                f"local_window_attention: key {tuple(key.shape)} for query {tuple(query.shape)}: expected both N×C×H×W"
            )
        if value.ndim != 4 or (value.shape[0], *value.shape[2:]) != (query.shape[0], *query.shape[2:]):
            raise ValueError(
                f"local_window_attention: value {tuple(value.shape)} for query {tuple(query.shape)}: expected N×D×H×W"
            )
        if radius < 0 or dilation < 1:
            raise ValueError(
                f"local_window_attention: radius {radius}, dilation {dilation}: expected at least 0 and at least 1"
            )
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"local_window_attention: normalization {normalization!r}: expected one of {', '.join(NORMALIZATIONS)}"
            )
        if border not in BORDERS:
            raise ValueError(f"local_window_attention: border {border!r}: expected one of {', '.join(BORDERS)}")
        return query, key, value, radius, dilation, float(scale), normalization, border, float(eps)

    def reference(  # noqa: D102
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        radius: int,
        dilation: int,
        scale: float,
        normalization: str,
        border: str,
        eps: float,
    ) -> Tensor:
        reach, (height, width) = radius * dilation, query.shape[2:]
        keys, values = (F.pad(item, [reach] * 4) for item in (key, value))
        places = [(i * dilation, j * dilation) for i in range(2 * radius + 1) for j in range(2 * radius + 1)]
        windows = [(slice(None), slice(None), slice(i, i + height), slice(j, j + width)) for i, j in places]
        score = scale * torch.stack([(query * keys[window]).sum(dim=1) for window in windows], dim=1)
        if normalization == "softmax":
            if border == "exclude":
                inside = F.pad(torch.ones_like(query[:, :1]), [reach] * 4)
                score = score.masked_fill(torch.cat([inside[w] == 0 for w in windows], dim=1), -torch.inf)
            weight = score.softmax(dim=1)
        elif normalization == "relu":
            weight = score.relu() / score.relu().sum(dim=1, keepdim=True).clamp(min=eps)
        else:
            weight = score
        return sum(weight[:, i : i + 1] * values[window] for i, window in enumerate(windows))

    def fake(self, query: Tensor, key: Tensor, value: Tensor, *rest: object) -> Tensor:  # noqa: D102
        return value.new_empty(value.shape)

    def supports(self, backend: str, *args: object) -> bool:  # noqa: D102
        return backend == "cpp" or args[3] <= _MAX_RADIUS

    def cpp(self, query: Tensor, key: Tensor, value: Tensor, *rest: object) -> Tensor:
        """Spans of a row with their windows in the cache, in one pass."""
        out = self.fake(query, key, value)
        tensors = (query.contiguous(), key.contiguous(), value.contiguous(), out)
        _native.call("window_attention", *tensors, *_shape(query, value), *_numbers(*rest))
        return out

    def cpp_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: object
    ) -> tuple[Tensor | None, ...]:
        """The query's gradient with the weights' in one pass; key and value then gather over the reversed window."""
        tensors, results, scratch = _backward_tensors(needs, grads[0], *args[:4])
        shape = _shape(args[0], args[2])
        _native.call("window_attention_backward", *tensors, *scratch, *results, *shape, *_numbers(*args[3:]))
        return results

    def cuda(self, query: Tensor, key: Tensor, value: Tensor, *rest: object) -> Tensor:
        """A block 32 pixels; weights in shared memory."""
        out = self.fake(query, key, value)
        tensors = (query.contiguous(), key.contiguous(), value.contiguous(), out)
        shape = _shape(query, value)[1:]
        _cuda.launch("window_attention", _blocks(query), _BLOCK, *tensors, *shape, *_numbers(*rest))
        return out

    def cuda_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: object
    ) -> tuple[Tensor | None, ...]:
        """As on the CPU: no atomics."""
        query, key, value, radius, dilation = args[:5]
        tensors, results, scratch = _backward_tensors(needs, grads[0], query, key, value, radius)
        shape, blocks = _shape(query, value)[1:], _blocks(query)
        numbers = _numbers(*args[3:])
        kernel = "window_attention_query_backward"
        _cuda.launch(kernel, blocks, _BLOCK, *tensors, *scratch, results[0], *shape, *numbers)
        for need, shares, source, result in zip(needs[1:], scratch[::-1], tensors[1::-1], results[1:], strict=True):
            if need:
                sizes = (*query.shape[2:], source.shape[1], radius, dilation)
                _cuda.launch("window_attention_collect", blocks, _BLOCK, shares, source, result, *sizes)
        return results


def _shape(query: Tensor, value: Tensor) -> tuple[int, ...]:
    return query.shape[0], *query.shape[2:], query.shape[1], value.shape[1]


def _numbers(radius: int, dilation: int, scale: float, normalization: str, border: str, eps: float) -> tuple:
    return radius, dilation, NORMALIZATIONS.index(normalization), border == "exclude", scale, eps


def _backward_tensors(
    needs: Sequence[bool], grad: Tensor, query: Tensor, key: Tensor, value: Tensor, radius: int
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...], tuple[Tensor, Tensor]]:
    """What the gradient reads, what it writes, and its scratch: weights and slopes N×offsets×H×W."""
    inputs = tuple(item.contiguous() for item in (query, key, value))
    results = tuple(item.new_empty(item.shape) if need else None for item, need in zip(inputs, needs, strict=True))
    scratch = tuple(query.new_empty(query.shape[0], (2 * radius + 1) ** 2, *query.shape[2:]) for _ in range(2))
    return (grad.contiguous(), *inputs), results, scratch


def _blocks(query: Tensor) -> int:
    return query.shape[0] * query.shape[2] * -(-query.shape[3] // _BLOCK[0])


local_window_attention = LocalWindowAttention()
