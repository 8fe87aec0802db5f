"""Layers that the parts share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.ops import instance_norm, pack_convolution, product, row_product, runs_onednn, winograd_conv2d
from ffplug.ops.build import BuildError
from ffplug.ops.convolution import ACTIVATIONS, KERNELS

Forms = dict[tuple[nn.Module, Callable], Tensor]
"""What was derived from weights, by module and function."""

_packed: ContextVar[Forms | None] = ContextVar("packed weights", default=None)


@contextlib.contextmanager
def fixed_weights(forms: Forms | None = None) -> Iterator[None]:
    """Promise that no weight changes within the context: what is derived from weights is derived once.

    Args:
        forms: keeps what is derived for the next context; the promise then holds until the last one. Within another
            context, which has its own, it stays as it is.
    """
    inner = {} if forms is None else forms
    token = _packed.set(inner if _packed.get() is None else _packed.get())
    try:
        yield
    finally:
        _packed.reset(token)


def derive(owner: nn.Module | None, weight: Tensor, form: Callable[[Tensor], Tensor]) -> Tensor | None:
    """A form of a module's weight for C++ kernels, made once within :func:`fixed_weights`.

    Args:
        owner: the module; None for a derived weight.
        weight: of the module.
        form: makes the form of the weight.

    Returns:
        The form, or None outside of such a context or where no kernel can be built.
    """
    known = _packed.get()
    if known is None or owner is None:
        return None
    if (owner, form) not in known:
        with contextlib.suppress(BuildError):  # the op meets it too, and falls back to its reference
            known[owner, form] = form(weight)
    return known.get((owner, form))


def in_layout_of(other: Tensor, x: Tensor) -> Tensor:
    """``x`` in channels-last memory if ``other`` is, else as it is; both N×C×H×W."""
    last = other.is_contiguous(memory_format=torch.channels_last) and not other.is_contiguous()
    return x.contiguous(memory_format=torch.channels_last) if last else x


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    addend: Tensor | None = None,
    activation: str = "none",
    owner: nn.Module | None = None,
) -> Tensor:
    """A convolution of stride 1 that keeps the size, an addend and an activation.

    Args:
        x: N×C×H×W.
        weight: O×C×kh×kw.
        bias: O, or None.
        addend: N×O×H×W, added before the activation, or None.
        activation: ``none``, ``relu``, ``sigmoid`` or ``tanh``.
        owner: the module whose parameter the weight is, for :func:`fixed_weights`; None for a derived weight.

    Returns:
        N×O×H×W.
    """
    # With few channels the transforms of Winograd's algorithm cost more than it saves.
    if tuple(weight.shape[2:]) in KERNELS and min(weight.shape[:2]) >= 16 and runs_onednn(x, weight):
        packed = derive(owner, weight, pack_convolution)
        return winograd_conv2d(x, weight, bias, addend, activation, packed)
    y = F.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2))
    return ACTIVATIONS[activation](y if addend is None else y + addend)


class Conv2d(nn.Conv2d):
    """A convolution of stride 1 that keeps the size, and what follows it.

    Args:
        inputs: channels of the input.
        outputs: channels of the result.
        kernel_size: height and width of the kernel, odd.
        bias: add a learned bias.
        activation: ``none``, ``relu``, ``sigmoid`` or ``tanh``.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: tuple[int, int] = (3, 3),
        bias: bool = True,
        activation: str = "none",
    ) -> None:
        super().__init__(inputs, outputs, kernel_size, padding=(kernel_size[0] // 2, kernel_size[1] // 2), bias=bias)
        self.activation = activation

    def forward(self, x: Tensor, addend: Tensor | None = None) -> Tensor:
        """N×inputs×H×W and what is added before the activation -> N×outputs×H×W."""
        return convolve(x, self.weight, self.bias, addend, self.activation, self)


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
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        stride: int = 1,
        norm: str = "none",
        relu: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=bias)
        self.norm = make_norm(norm, outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H/stride×W/stride."""
        conv, norm = self.conv, self.norm
        activation = "relu" if self.relu else "none"
        if isinstance(norm, InstanceNorm2d):
            return norm(self._convolve(x, conv.weight, conv.bias, "none", conv), self.relu)
        if isinstance(norm, nn.Identity):
            return self._convolve(x, conv.weight, conv.bias, activation, conv)
        if isinstance(norm, nn.BatchNorm2d) and not norm.training:
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            weight = conv.weight * scale[:, None, None, None]
            mean = norm.running_mean if conv.bias is None else norm.running_mean - conv.bias
            bias = norm.bias - mean * scale
            return self._convolve(x, weight, bias, activation, None)
        y = norm(conv(x))
        return torch.relu_(y) if self.relu else y

    def _convolve(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, owner: nn.Module | None
    ) -> Tensor:
        if self.conv.stride == (1, 1):
            return convolve(x, weight, bias, None, activation, owner)
        y = F.conv2d(x, weight, bias, self.conv.stride, self.conv.padding)
        return torch.relu_(y) if activation == "relu" else y


class Linear(nn.Linear):
    """A linear layer and the activation that follows it, through the fastest product at hand.

    Args:
        inputs: channels of the input.
        outputs: channels of the result.
        bias: add a learned bias.
        activation: ``none``, ``relu`` or ``gelu``.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, activation: str = "none") -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """...×inputs -> ...×outputs."""
        return row_product(x, self.weight, self.bias, self.activation)


class PointwiseConv2d(nn.Conv2d):
    """A 1×1 convolution, run as a product of channels-last rows where that is fastest.

    Args:
        inputs: channels of the input.
        outputs: channels of the result.
        bias: add a learned bias.
        activation: ``none``, ``relu`` or ``gelu``.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True, activation: str = "none") -> None:
        super().__init__(inputs, outputs, 1, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H×W."""
        if runs_onednn(x, self.weight):
            rows = row_product(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias, self.activation)
            return rows.permute(0, 3, 1, 2)
        return product.ACTIVATIONS[self.activation](super().forward(x))


def init_encoder(module: nn.Module) -> None:
    """Initialise an encoder's convolutions as RAFT does: Kaiming normal, fan out, ReLU gain."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def scale_image(image: Tensor) -> Tensor:
    """RGB in 0..255 to -1..1, as the RAFT family takes it."""
    return image * (2 / 255) - 1
