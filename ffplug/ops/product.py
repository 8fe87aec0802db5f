"""Products of rows with a weight, by the fastest library at hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.ops.contract import requested_backend

ACTIVATIONS = {"none": lambda y: y, "relu": torch.relu_, "gelu": F.gelu}
_FEW = 128  # rows for which the plain product is as fast


def runs_onednn(*tensors: Tensor) -> bool:
    """Whether a product of these tensors may go to oneDNN's inference kernels: float32 on a CPU, no gradient asked for.

    PyTorch sends matrix products and 1×1 convolutions to the BLAS library, which on some processors is half as fast as
    oneDNN's convolutions (docs/benchmarks.md). Those kernels have no gradient, and a compiler has its own way to them.
    """
    return (
        not torch.is_grad_enabled()
        and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and requested_backend() != "torch"
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def row_product(rows: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """A linear layer: ``rows @ weight.T + bias``, then the activation.

    Args:
        rows: ...×K.
        weight: M×K.
        bias: M, or None.
        activation: ``none``, ``relu`` or ``gelu`` (the exact one).

    Returns:
        ...×M, contiguous.
    """
    count = rows.numel() // max(rows.shape[-1], 1)
    if count < _FEW or not runs_onednn(rows, weight):
        return ACTIVATIONS[activation](F.linear(rows, weight, bias))
    # A 1×1 convolution over the rows as one long image, channels last; the kernel takes no other strides.
    image = rows.contiguous().view(1, count, 1, -1).permute(0, 3, 1, 2)
    kernel = weight.contiguous().view(*weight.shape, 1, 1)
    out = torch.ops.mkldnn._convolution_pointwise(
        image, kernel, bias, [0, 0], [1, 1], [1, 1], 1, activation, [], "none" if activation == "gelu" else ""
    )
    return out.permute(0, 2, 3, 1).reshape(*rows.shape[:-1], weight.shape[0])


def batched_row_product(rows: Tensor, weight: Tensor) -> Tensor:
    """``rows @ weight.transpose(-1, -2)`` for ...×P×K and ...×M×K, all with the same leading dimensions."""
    if not runs_onednn(rows, weight) or rows.numel() == 0:
        return rows @ weight.transpose(-1, -2)
    products = list(map(row_product, rows.flatten(0, -3), weight.flatten(0, -3)))
    return (products[0][None] if len(products) == 1 else torch.stack(products)).unflatten(0, rows.shape[:-2])
