"""Layers that the parts share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.ops import instance_norm


def runs_onednn(*tensors: Tensor) -> bool:
    """Whether a product of these tensors may go to oneDNN's inference kernels: float32 on a CPU, no gradient asked for.

    PyTorch sends matrix products and 1×1 convolutions to the BLAS library, which is half as fast as oneDNN on some
    processors (benchmarks.md); the kernels have no gradient, and a compiler has its own way to them.
    """
    return (
        not torch.is_grad_enabled()
        and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
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
    if runs_onednn(rows, weight):
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, activation, [], "none")
    out = F.linear(rows, weight, bias)
    return {"none": lambda x: x, "relu": torch.relu_, "gelu": F.gelu}[activation](out)


def batched_row_product(rows: Tensor, weight: Tensor) -> Tensor:
    """``rows @ weight.transpose(-1, -2)`` for ...×P×K and ...×M×K, all with the same leading dimensions."""
    if not runs_onednn(rows, weight):
        return rows @ weight.transpose(-1, -2)
    lead = rows.shape[:-2]
    products = list(map(row_product, rows.flatten(0, -3), weight.flatten(0, -3)))
    return (products[0][None] if len(products) == 1 else torch.stack(products)).unflatten(0, lead)


class InstanceNorm2d(nn.Module):
    """Instance normalisation without affine parameters or running statistics; a plane of one pixel gives zero."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """N×C×H×W -> N×C×H×W, clamped at zero if ``relu``."""
        return instance_norm(x, self.eps, relu)


def make_norm(name: str, channels: int) -> nn.Module:
    """Make the normalisation ``instance``, ``batch``, ``group`` (of eight channels) or ``none`` for ``channels``."""
    makers = {
        "instance": InstanceNorm2d,
        "batch": lambda: nn.BatchNorm2d(channels),
        "group": lambda: nn.GroupNorm(max(channels // 8, 1), channels),
        "none": nn.Identity,
    }
    if name not in makers:
        raise ValueError(f"norm={name!r}: expected one of {', '.join(makers)}")
    return makers[name]()


class ConvNorm(nn.Module):
    """A convolution, its normalisation and a ReLU; batch norm with fixed statistics is folded into the convolution.

    Folding is done on the fly from the live parameters (it costs one pass over the weights), so that nothing can be
    stale after loading or training.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel_size: int, stride: int = 1, norm: str = "none", relu: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2)
        self.norm = make_norm(norm, outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H/stride×W/stride."""
        conv, norm = self.conv, self.norm
        if isinstance(norm, InstanceNorm2d):
            return norm(conv(x), self.relu)
        if isinstance(norm, nn.BatchNorm2d) and not norm.training:
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight = conv.weight * scale[:, None, None, None]
            bias = (conv.bias - norm.running_mean) * scale + norm.bias
            out = F.conv2d(x, weight, bias, conv.stride, conv.padding)
        else:
            out = norm(conv(x))
        return torch.relu_(out) if self.relu else out


class PointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution, run as a product of channels-last rows where that is fastest.

    Args:
        inputs: channels of the input.
        outputs: channels of the result.
        bias: add a learned bias.
        relu: clamp the result at zero.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, relu: bool = False) -> None:
        super().__init__(inputs, outputs, 1, bias=bias)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H×W."""
        if runs_onednn(x, self.weight):
            activation = "relu" if self.relu else "none"
            rows = row_product(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias, activation)
            return rows.permute(0, 3, 1, 2)
        out = super().forward(x)
        return torch.relu_(out) if self.relu else out


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3×3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def init_encoder(module: nn.Module) -> None:
    """Initialise an encoder's convolutions as RAFT does: Kaiming normal, fan out, ReLU gain."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def scale_image(image: Tensor) -> Tensor:
    """RGB in 0..255 to -1..1, as the RAFT family takes it."""
    return image * (2 / 255) - 1
