"""Necks: from the stages of a backbone to the vectors, one a level, that the heads see.

A neck here is called with the stages' maps and gives the levels' maps; ``means`` gives the levels' spatial means, in
the quickest way. Any other neck (mmpretrain's, say) is called, and what is a map is averaged.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.errors import ConfigError
from ffplug_fpnmaa.registry import MODELS

EXTRAS = ("subsample", "none")
INITS = ("default", "kaiming_a1")


def mean_of_convolution(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """The spatial mean of a padded 3×3 convolution, without computing it.

    The tap (i, j) reads all of ``x`` but a row and a column at the rim, so the mean is the bias and, over the taps, the
    tap's weights times nine sums of ``x``: exact, and 9·C numbers in the place of a map.

    Args:
        convolution: 3×3, stride 1, padding 1.
        x: N×C×H×W.

    Returns:
        N×C', float32 or wider.
    """
    height, width = x.shape[2:]
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    columns = x.sum(dim=2)  # N×C×W
    columns = torch.stack([columns - x[:, :, -1], columns, columns - x[:, :, 0]], dim=2)  # rows that the taps read
    whole = columns.sum(dim=3)
    sums = torch.stack([whole - columns[..., -1], whole, whole - columns[..., 0]], dim=3)  # N×C×3×3
    weight = convolution.weight.flatten(1).to(sums.dtype)
    with torch.autocast(x.device.type, enabled=False):
        mean = F.linear(sums.flatten(1) / (height * width), weight)
        return mean if convolution.bias is None else mean + convolution.bias.to(sums.dtype)


@MODELS.register_module()
class PyramidNeck(nn.Module):
    """A feature pyramid (Lin et al., CVPR 2017), as FPN-MAA uses it: no norm, no activation.

    Args:
        in_channels: channels of the stages, finest first.
        out_channels: channels of every level.
        extra: ``subsample`` adds a level, every second pixel of the coarsest one; ``none`` does not.
        init: ``default``, that of PyTorch, which the published network really had; ``kaiming_a1`` draws Kaiming-uniform
            weights (a = 1) and no biases, as its library meant to.

    Raises:
        ConfigError: an argument is none of the above.

    Example:
        dict(type="ffplug_fpnmaa.PyramidNeck", in_channels=[16, 32, 64, 128], out_channels=16)
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int = 256, extra: str = "subsample", init: str = "default"
    ) -> None:
        super().__init__()
        if extra not in EXTRAS or init not in INITS:
            raise ConfigError(
                f"extra={extra!r}, init={init!r}: expected one of {', '.join(EXTRAS)}, and of {', '.join(INITS)}"
            )
        if not in_channels or out_channels < 1:
            raise ConfigError(f"in_channels={in_channels}, out_channels={out_channels}: expected at least one of each")
        self.in_channels, self.extra = tuple(in_channels), extra
        self.lateral = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        self.smooth = nn.ModuleList(nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in in_channels)
        self.channels = (out_channels,) * (len(self.in_channels) + (extra == "subsample"))
        if init == "kaiming_a1":
            for convolution in (*self.lateral, *self.smooth):
                nn.init.kaiming_uniform_(convolution.weight, a=1)
                nn.init.zeros_(convolution.bias)

    def _merged(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """The top-down path, finest first, before the 3×3 convolutions."""
        found = tuple(stage.shape[1] for stage in stages)
        if found != self.in_channels:
            raise ConfigError(
                f"PyramidNeck: in_channels={self.in_channels}, but the backbone gives stages of {found} channels; "
                "set in_channels, or the backbone's out_indices"
            )
        merged = [lateral(stage) for lateral, stage in zip(self.lateral, stages, strict=True)]
        for level in range(len(merged) - 2, -1, -1):
            finer = merged[level]
            merged[level] = finer + F.interpolate(merged[level + 1], size=finer.shape[2:], mode="nearest")
        return merged

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The levels' maps.

        Args:
            stages: N×C_i×H_i×W_i, finest first.

        Returns:
            N×C×H_i×W_i each, finest first, and the extra level last.
        """
        levels = [smooth(merged) for smooth, merged in zip(self.smooth, self._merged(stages), strict=True)]
        return (*levels, *self._extra(levels[-1]))

    def means(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """The levels' spatial means, N×C each, as those of :meth:`forward` but for rounding; arguments alike."""
        merged = self._merged(stages)
        coarsest = self.smooth[-1](merged[-1])
        finer = [mean_of_convolution(*pair) for pair in zip(self.smooth[:-1], merged[:-1], strict=True)]
        return [*finer, *(level.mean(dim=(2, 3)) for level in (coarsest, *self._extra(coarsest)))]

    def _extra(self, coarsest: Tensor) -> list[Tensor]:
        return [coarsest[:, :, ::2, ::2]] if self.extra == "subsample" else []


@MODELS.register_module()
class StageMeans(nn.Module):
    """No pyramid: the means of the stages themselves, to compare with.

    A feature pyramid without norm and activation is linear, so its means are linear in these, but for the rim.

    Args:
        in_channels: channels of the stages, finest first.

    Example:
        dict(type="ffplug_fpnmaa.StageMeans", in_channels=[16, 32, 64, 128])
    """

    def __init__(self, in_channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(in_channels)

    def forward(self, stages: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The stages as they are."""
        return tuple(stages)
