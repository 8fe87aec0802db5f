"""The network of STSS (AAAI 2024): super-sampled and extrapolated frames by the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.errors import ConfigError
from ffplug.models.layers import PointwiseConv2d
from ffplug_stss.channels import HISTORY, SCALE, Inputs
from ffplug_stss.models.layers import GatedConvolution, balance, stack
from ffplug_stss.registry import MODELS


class HistoryEncoder(nn.Module):
    """Features of earlier frames at 1/8 of the resolution, fused through a gate.

    Args:
        fine: channels of each frame's features at 1/2 of the resolution.
        channels: of the result, and of each frame's features.
    """

    def __init__(self, fine: int = 24, channels: int = 32) -> None:
        super().__init__()
        self.frame = nn.Sequential(
            stack(4, fine, fine, fine, stride=2),
            stack(fine, channels, channels, channels, stride=2),
            stack(channels, channels, channels, channels, stride=2),
        )
        self.fuse = GatedConvolution(HISTORY * channels, channels, activation="none")

    def forward(self, history: Tensor) -> Tensor:
        """N×3×4×H×W -> N×channels×H/8×W/8."""
        features = self.frame(_channels_last(history.flatten(0, 1)))
        return self.fuse(features.unflatten(0, history.shape[:2]).flatten(1, 2))


class Down(nn.Module):
    """Half the size by a gated convolution without ReLU, then two with."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shrink = GatedConvolution(inputs, inputs, stride=2, activation="none")
        self.first = GatedConvolution(inputs, outputs)
        self.second = GatedConvolution(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H/2×W/2."""
        return self.second(self.first(self.shrink(x)))


class Up(nn.Module):
    """Twice the size, beside what the encoder had there, then two convolutions.

    Args:
        inputs: channels of what is enlarged.
        skipped: channels of what the encoder had.
        outputs: channels of the result.
        align_corners: how the size is doubled.
    """

    def __init__(self, inputs: int, skipped: int, outputs: int, align_corners: bool) -> None:
        super().__init__()
        self.skipped = skipped
        self.convolutions = stack(skipped + inputs, (skipped + inputs) // 2, outputs)
        self.align_corners = align_corners

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """N×inputs×H/2×W/2 and N×skipped×H×W -> N×outputs×H×W."""
        # The size is given in numbers, for exporters that take no factor with align_corners.
        x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=self.align_corners)
        return self.convolutions(torch.cat([skip, x], dim=1))


@MODELS.register_module()
class STSSNet(nn.Module):
    """Twice the size of a frame whose shading is aliased or missing; 417,241 parameters as published.

    A U-Net of gated convolutions over the warped frame and the buffers; history features and the reshading module meet
    at 1/8 of the resolution; the result is added to the bilinearly enlarged frame. Sides must be multiples of 8.

    Args:
        reshading: config of the module at the bottom (ERM); None passes the encoder's features on in its place.
        history: encode the earlier frames; without, ``history`` of the input is not read.
        align_corners: how the decoder doubles sizes. True is published, and makes results depend a little on where a
            picture is cut; False does not.
        widths: channels of the finer two levels and of the coarser two; the published network has 24 and 32.
        balanced: draw weights so that the signal keeps its size through gates, which halve it, and start from the
            enlarged frame itself. PyTorch's own start, which is published, shrinks what eleven gates pass on to almost
            nothing, and short trainings do not leave the enlarged frame.

    Example:
        dict(type="ffplug_stss.STSSNet", reshading=dict(type="ffplug_stss.EfficientReshading"))
    """

    def __init__(
        self,
        reshading: Mapping[str, Any] | None = None,
        history: bool = True,
        align_corners: bool = True,
        widths: Sequence[int] = (24, 32),
        balanced: bool = False,
    ) -> None:
        super().__init__()
        if len(widths) != 2 or min(widths) < 2:
            raise ConfigError(f"widths={tuple(widths)}: expected two numbers of channels, of at least 2")
        fine, coarse = widths
        self.stem = nn.Sequential(GatedConvolution(21, fine), GatedConvolution(fine, fine))
        self.down = nn.ModuleList([Down(fine, fine), Down(fine, coarse), Down(coarse, coarse)])
        self.history = HistoryEncoder(fine, coarse) if history else None
        self.reshading = MODELS.build(dict(reshading)) if reshading is not None else None
        bottom = (self.reshading.channels if self.reshading is not None else coarse) + (coarse if history else 0)
        self.up = nn.ModuleList(
            [
                Up(bottom, coarse, coarse, align_corners),
                Up(coarse, fine, fine, align_corners),
                Up(fine, fine, fine, align_corners),
            ]
        )
        self.head = PointwiseConv2d(fine, 3 * SCALE**2)
        if balanced:
            self._balance()

    def _balance(self) -> None:
        self.apply(balance)
        with torch.no_grad():
            for up in self.up:
                # What comes from below is noise at first; were it loud, training would silence it for good.
                up.convolutions[0].weight[:, up.skipped :] *= 0.2
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
            # Half of the first filters see differences of neighbours alone, which say more than the level.
            differences = self.stem[0].weight[: (len(self.stem[0].weight) - 1) // 2]
            differences -= differences.mean(dim=(2, 3), keepdim=True)

    def forward(self, x: Tensor, feature: Tensor, mask: Tensor, history: Tensor) -> Tensor:
        """Produce a frame; the arguments are the fields of :class:`ffplug_stss.channels.Inputs`.

        Returns:
            RGB N×3×2H×2W, not clamped.

        Raises:
            ConfigError: sides are no multiples of 8.
        """
        if x.shape[2] % 8 or x.shape[3] % 8:
            raise ConfigError(f"STSSNet: input of {x.shape[2]}×{x.shape[3]} pixels: expected sides in multiples of 8")
        maps = [self.stem(_channels_last(torch.cat([x, x * mask, feature], dim=1)))]
        for down in self.down:
            maps.append(down(maps[-1]))
        bottom = maps.pop()
        if self.reshading is not None:
            bottom = self.reshading(bottom, centre_mean(feature), centre_mean(mask))
        if self.history is not None:
            bottom = torch.cat([bottom, self.history(history)], dim=1)
        for up in self.up:
            bottom = up(bottom, maps.pop())
        return spread(self.head(bottom)) + enlarge(x[:, :3])

    def produce(self, inputs: Inputs) -> Tensor:
        """:meth:`forward` with the four inputs in one."""
        return self(*inputs)


def centre_mean(x: Tensor) -> Tensor:
    """N×C×H×W -> N×C×H/8×W/8, the mean of each block's four central pixels (bilinear shrinking by 8)."""
    rows = x[:, :, 3::8] + x[:, :, 4::8]
    return (rows[..., 3::8] + rows[..., 4::8]) / 4


def enlarge(frame: Tensor) -> Tensor:
    """N×C×H×W -> N×C×2H×2W, bilinear: what there is without a network."""
    size = [SCALE * side for side in frame.shape[2:]]
    return F.interpolate(_channels_last(frame), size=size, mode="bilinear", align_corners=False)


def spread(x: Tensor) -> Tensor:
    """N×4C×H×W -> N×C×2H×2W, as ``pixel_shuffle`` does, which is slow on channels-last maps on a CPU."""
    count, channels, height, width = x.shape
    cells = x.permute(0, 2, 3, 1).unflatten(3, (channels // SCALE**2, SCALE, SCALE)).permute(0, 1, 4, 2, 5, 3)
    return cells.reshape(count, SCALE * height, SCALE * width, channels // SCALE**2).permute(0, 3, 1, 2)


def _channels_last(x: Tensor) -> Tensor:
    """The layout in which a CPU runs the network fastest; elsewhere as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x
