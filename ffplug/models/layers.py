"""Layers that the parts share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class InstanceNorm2d(nn.Module):
    """Instance normalisation without affine parameters or running statistics.

    Computed as a layer norm over each channel's plane, which is the same sum and vectorises better on a CPU; a plane of
    one pixel gives zero in place of an error.
    """

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W -> N×C×H×W."""
        flat = x.flatten(2)
        return F.layer_norm(flat, flat.shape[-1:], eps=self.eps).view_as(x)


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
    """A convolution and its normalisation; batch norm with fixed statistics is folded into the convolution.

    Folding is done on the fly from the live parameters (it costs one pass over the weights), so that nothing can be
    stale after loading or training.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int = 1, norm: str = "none") -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2)
        self.norm = make_norm(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H/stride×W/stride."""
        conv, norm = self.conv, self.norm
        if isinstance(norm, nn.BatchNorm2d) and not norm.training:
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight = conv.weight * scale[:, None, None, None]
            bias = (conv.bias - norm.running_mean) * scale + norm.bias
            return F.conv2d(x, weight, bias, conv.stride, conv.padding)
        return norm(conv(x))


class PointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution run as a matrix product, which takes channels-last views as they are."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W, of any memory layout -> N×outputs×H×W."""
        weight = self.weight.flatten(1)
        out = weight @ x.flatten(2)
        if self.bias is not None:
            out = out + self.bias[:, None]
        return out.view(x.shape[0], -1, *x.shape[2:])


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
