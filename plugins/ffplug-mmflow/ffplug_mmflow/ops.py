"""The two ops of mmcv that MMFlow's networks need, in PyTorch: for every device, with gradients, nothing to compile."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.errors import PluginError


def correlation(
    image1: Tensor,
    image2: Tensor,
    kernel_size: int = 1,
    max_displacement: int = 1,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    dilation_patch: int = 1,
) -> Tensor:
    """Products of windows of one map with shifted windows of another, summed over channels and window.

    ``out[n, dy, dx, y, x] = sum_{c, i, j} image1[n, c, p] · image2[n, c, p + dilation_patch · (dy - r, dx - r)]`` with
    ``p = stride · (y, x) - padding + dilation · (i, j)`` and r = ``max_displacement``; both maps are zero outside.

    Args:
        image1: N×C×H×W.
        image2: as ``image1``.
        kernel_size: sides of the window.
        max_displacement: r, the greatest shift in steps of ``dilation_patch``.
        stride: steps between the windows.
        padding: how far windows may begin outside of ``image1``.
        dilation: steps between the elements of a window.
        dilation_patch: steps between the shifts, in pixels.

    Returns:
        N×(2r+1)×(2r+1)×H'×W' with ``H' = (H + 2·padding - dilation·(kernel_size - 1) - 1) // stride + 1``.
    """
    shifts = range(2 * max_displacement + 1)
    reach = dilation * (kernel_size - 1)
    height, width = ((size + 2 * padding - reach - 1) // stride + 1 for size in image1.shape[-2:])
    margin = padding + max_displacement * dilation_patch
    image1, image2 = F.pad(image1, (padding,) * 4), F.pad(image2, (margin,) * 4)

    def window(image: Tensor, top: int, left: int) -> Tensor:
        rows = slice(top, top + (height - 1) * stride + 1, stride)
        return image[..., rows, left : left + (width - 1) * stride + 1 : stride]

    steps = range(0, reach + 1, dilation)
    places = [(i, j, window(image1, i, j)) for i in steps for j in steps]
    products = []
    for dy in shifts:
        for dx in shifts:
            top, left = dy * dilation_patch, dx * dilation_patch
            terms = [(fixed * window(image2, i + top, j + left)).sum(1) for i, j, fixed in places]
            products.append(terms[0] if len(terms) == 1 else torch.stack(terms).sum(0))
    return torch.stack(products, 1).unflatten(1, (len(shifts), len(shifts)))


class Correlation(nn.Module):
    """:func:`correlation` as a layer, with the arguments of mmcv's layer of that name."""

    def __init__(
        self,
        kernel_size: int = 1,
        max_displacement: int = 1,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        dilation_patch: int = 1,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.options = (kernel_size, max_displacement, stride, padding, dilation, dilation_patch)

    def forward(self, image1: Tensor, image2: Tensor) -> Tensor:
        """N×C×H×W twice -> N×(2r+1)×(2r+1)×H'×W'."""
        return correlation(image1, image2, *self.options)


class DeformConv2d(nn.Module):
    """Deformable convolution without bias, by torchvision's op, with the arguments of mmcv's layer of that name."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        deform_groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        try:
            from torchvision.ops import deform_conv2d
        except ImportError as error:
            raise PluginError(
                "MMFlow's MaskFlowNet needs torchvision: `pip install 'ffplug-mmflow[baselines]'`"
            ) from error
        if bias or in_channels % groups or in_channels % deform_groups:
            raise ValueError("DeformConv2d: expected no bias, and channels that the groups divide")
        self.convolve = deform_conv2d
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")

    def forward(self, features: Tensor, offset: Tensor) -> Tensor:
        """Features N×C×H×W, offsets N×(2·groups·k²)×H'×W' (y before x, kernel row by row) -> N×C'×H'×W'."""
        with torch.autocast(features.device.type, enabled=False):  # torchvision's op has no half precision on the CPU
            steps = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
            result = self.convolve(features.float(), offset.float(), self.weight.float(), **steps)
        return result.to(features.dtype)
