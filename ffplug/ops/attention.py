"""Attention weights over all cells of a frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ffplug.ops.build import CSRC
from ffplug.ops.contract import Op, register_op
from ffplug.ops.native import NativeSource
from ffplug.ops.product import row_product

_native = NativeSource(CSRC / "attention.cpp")
_CHUNK = 256  # rows of logits that are at hand at a time


@register_op
class AttentionWeights(Op):
    """``softmax(query @ keyᵀ)`` over the last dimension, without a second matrix of its size.

    On CUDA the reference serves: cuBLAS and torch's softmax leave little to gain.

    Args (of the call):
        query: ...×P×C, already scaled.
        key: ...×M×C, with the same leading dimensions.

    Returns:
        ...×P×M, rows that sum up to one.
    """

    name = "attention_weights"
    schema = "(Tensor query, Tensor key) -> Tensor"
    differentiable = ("query", "key")

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        return make(2, 1, 7, 5), make(2, 1, 9, 5)

    def prepare(self, query: Tensor, key: Tensor) -> tuple:  # noqa: D102
        if query.shape[:-2] != key.shape[:-2] or query.shape[-1] != key.shape[-1]:
            raise ValueError(
                f"attention_weights: query {tuple(query.shape)}, key {tuple(key.shape)}: expected ...×P×C and ...×M×C"
            )
        return query, key

    def reference(self, query: Tensor, key: Tensor) -> Tensor:  # noqa: D102
        return (query @ key.transpose(-1, -2)).softmax(dim=-1)

    def fake(self, query: Tensor, key: Tensor) -> Tensor:  # noqa: D102
        return query.new_empty(*query.shape[:-1], key.shape[-2])

    def supports(self, backend: str, query: Tensor, key: Tensor) -> bool:
        """The reference alone serves an empty softmax."""
        return key.shape[-2] > 0

    def cpp(self, query: Tensor, key: Tensor) -> Tensor:
        """A chunk of rows at a time: product, then softmax while the logits lie in the cache."""
        weights = self.fake(query, key)
        if weights.numel() == 0:
            return weights
        for rows, keys, out in zip(*(x.reshape(-1, *x.shape[-2:]) for x in (query, key, weights)), strict=True):
            for part, target in zip(rows.split(_CHUNK), out.split(_CHUNK), strict=True):
                logits = row_product(part, keys)
                _native.call("softmax_rows", logits, target, *logits.shape)
        return weights


attention_weights = AttentionWeights()
