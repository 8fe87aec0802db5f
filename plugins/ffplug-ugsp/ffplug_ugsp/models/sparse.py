"""Layers computed at the pixels of a mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.models.layers import derive
from ffplug.ops import active_pixels, pack_sparse_convolution, sparse_conv2d


def sparse_layer(
    layer: nn.Conv2d, inputs: Sequence[Tensor], mask: Tensor, active: Tensor, outside: str = "zero"
) -> Tensor:
    """A convolution of the concatenation of maps at the pixels of a mask, with its bias and PReLU if it has them.

    Args:
        layer: a convolution, with the attribute ``slope`` if a PReLU follows.
        inputs: N×C×H×W each.
        mask: N×1×H×W bool.
        active: :func:`ffplug.ops.active_pixels` of it.
        outside: ``zero``, or ``bias``: what a layer gives where its inputs are zero.

    Returns:
        N×O×H×W, channels last.
    """
    weight, first = layer.weight, inputs[0]
    packed = None
    if first.device.type == "cpu" and first.dtype == weight.dtype:
        packed = derive(layer, weight, pack_sparse_convolution)
    slope = getattr(layer, "slope", None)
    return sparse_conv2d(first, weight, mask, layer.bias, slope, outside, inputs[1:], active, packed)


def enlarge_sparse(up: nn.ConvTranspose2d, x: Tensor, before: nn.Conv2d, mask: Tensor) -> Tensor:
    """A transposed convolution of 4×4 and stride 2 of a map that is constant outside a mask.

    It is computed within a pixel of the mask, as a convolution that gives all four pixels of each; the constant's part
    needs but one channel.

    Args:
        up: the layer.
        x: N×C×H×W, 0 outside the mask, where ``before`` would have given the PReLU of its bias.
        before: the layer, with a PReLU, that gave x.
        mask: N×1×H×W bool.

    Returns:
        N×O×2H×2W.
    """
    weight = _as_convolution(up.weight)
    constant = F.prelu(before.bias[None], before.slope)[0]
    share = torch.einsum("c,ocij->oij", constant, weight)[:, None]
    around = F.max_pool2d(mask.to(x.dtype), 3, 1, 1).bool()
    y = sparse_conv2d(x, weight, around, None, None, "zero", (), active_pixels(around))
    y = y + F.conv2d((~mask).to(x.dtype), share, up.bias.repeat(4), padding=1)
    count, channels, height, width = y.shape
    y = y.view(count, 2, 2, channels // 4, height, width)
    return y.permute(0, 3, 4, 1, 5, 2).reshape(count, channels // 4, 2 * height, 2 * width)


def _as_convolution(weight: Tensor) -> Tensor:
    """A transposed convolution C×O×4×4 of stride 2 as a convolution 4O×C×3×3, outputs by row and column parity."""
    parts = []
    for row in range(2):
        for column in range(2):
            part = weight.new_zeros(weight.shape[1], weight.shape[0], 3, 3)
            # Output 2i + row takes input i - 1 + row by tap 3 - row, and input i + row by tap 1 - row.
            taps = weight[:, :, [3 - row, 1 - row]][..., [3 - column, 1 - column]]
            part[:, :, row : row + 2, column : column + 2] = taps.transpose(0, 1)
            parts.append(part)
    return torch.cat(parts)
