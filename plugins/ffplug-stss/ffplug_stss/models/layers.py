"""Convolutions of the network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.models.layers import convolve
from ffplug.ops import runs_onednn
from ffplug_stss.ops import apply_gate

_WIDE = 32
"""Channels from which on Winograd's transforms cost less than they save; most of this network is narrower."""


class Convolution(nn.Conv2d):
    """A 3×3 convolution and its activation.

    Args:
        inputs: channels of the input.
        outputs: channels of the result.
        stride: 1 keeps the size, 2 halves it.
        activation: ``none`` or ``relu``.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, activation: str = "none") -> None:
        super().__init__(inputs, outputs, 3, stride, 1)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H/stride×W/stride."""
        if self.stride == (1, 1) and min(self.weight.shape[:2]) >= _WIDE:
            return convolve(x, self.weight, self.bias, None, self.activation, self)
        if runs_onednn(x, self.weight):
            return torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, [1, 1], [*self.stride], [1, 1], 1, self.activation, [], ""
            )
        y = F.conv2d(x, self.weight, self.bias, self.stride, 1)
        return torch.relu_(y) if self.activation == "relu" else y


class GatedConvolution(Convolution):
    """A 3×3 convolution whose last output channel gates all others: ``features · sigmoid(gate)``.

    Args:
        inputs: channels of the input.
        outputs: channels of the result.
        stride: 1 keeps the size, 2 halves it.
        activation: ``none`` or ``relu``, after the gate.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, activation: str = "relu") -> None:
        super().__init__(inputs, outputs + 1, stride)
        self.relu = activation == "relu"

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H/stride×W/stride."""
        return apply_gate(super().forward(x), self.relu)


def stack(*widths: int, stride: int = 1, last: str = "relu") -> nn.Sequential:
    """Convolutions with ReLU, the first of this stride; ``last`` is the activation of the last one."""
    count = len(widths) - 1
    return nn.Sequential(
        *(
            Convolution(widths[i], widths[i + 1], stride if i == 0 else 1, "relu" if i < count - 1 else last)
            for i in range(count)
        )
    )


def balance(layer: nn.Module) -> None:
    """Draw a convolution's weights so that its result is about as large as its input, gate and ReLU counted in."""
    if not isinstance(layer, Convolution):
        return
    gated = isinstance(layer, GatedConvolution)
    rectified = layer.relu if gated else layer.activation == "relu"
    with torch.no_grad():
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if rectified else "linear")
        nn.init.zeros_(layer.bias)
        if gated:
            # A gate begins at one half.
            layer.weight[:-1] *= 2
            layer.weight[-1] = 0
