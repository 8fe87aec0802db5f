"""The uncertainty network of UGSP's first phase: where is the frame hard to tell?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.models.padding import pad
from ffplug_ugsp.models.layers import centre, resize, warp
from ffplug_ugsp.models.ugsp import UGSPNet
from ffplug_ugsp.registry import MODELS


@MODELS.register_module()
class UncertaintyNet(UGSPNet):
    """UGSP without masks that predicts, at each of its three finer levels, a frame and how far to trust it.

    The paper leaves its form open. Here a level's frame is the mean of both frames warped by the level's flow, at the
    finest level the frame itself; its uncertainty comes of the level's features by three convolutions with ELU, as
    in the work on super-resolution that the paper builds on (Ning et al., NeurIPS 2021), on the grid of the features.

    Args:
        widths: see :class:`UGSPNet`.
        depths: see :class:`UGSPNet`.

    Example:
        dict(type="ffplug_ugsp.UncertaintyNet")
    """

    def __init__(self, widths: Sequence[int] = (32, 48, 72, 96), depths: Sequence[int] = (5, 5, 5, 4)) -> None:
        super().__init__(widths, depths, prune=False)
        channels = (widths[1], widths[0], 3 * widths[0] + 4)
        self.heads = nn.ModuleList(
            nn.Sequential(
                *(layer for outputs in (count, count, 3) for layer in (nn.Conv2d(count, outputs, 3, 1, 1), nn.ELU()))
            )
            for count in channels
        )

    def outputs(
        self,
        frame0: Tensor,
        frame1: Tensor,
        timestep: Tensor,
        target: Tensor | None = None,
        valid: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        """What :class:`UGSPNet` gives, with ``frames`` and ``uncertainties`` of the three finer levels at full size.

        Uncertainties are N×3×H×W, logarithms of a scale of errors, above -1.
        """
        found = super().outputs(frame0, frame1, timestep)
        size = frame0.shape[2:]
        first, second, mean = centre(frame0, frame1)
        found["frames"] = []
        for flow, factor in zip(found["flows"][1:3], (4, 2), strict=True):
            flow = factor * resize(flow, factor)
            frame = (warp(first, flow[:, :2]) + warp(second, flow[:, 2:])) / 2 + mean
            found["frames"].append(frame.clamp(0, 1))
        found["frames"].append(found["frame"])
        found["uncertainties"] = [
            F.interpolate(head(feature), size=size, mode="nearest")
            for head, feature in zip(self.heads, found["features"], strict=True)
        ]
        return found

    @torch.no_grad()
    def uncertainty(self, frame0: Tensor, frame1: Tensor) -> Tensor:
        """Mean over colours of the uncertainties of the three levels, N×3×H×W, for frames N×3×H×W of any size."""
        count, _, height, width = frame0.shape
        padding = (0, -width % self.multiple, 0, -height % self.multiple)
        half = frame0.new_full((count,), 0.5)
        levels = self.outputs(pad(frame0, padding), pad(frame1, padding), half)["uncertainties"]
        return torch.stack([level.mean(dim=1) for level in levels], dim=1)[..., :height, :width]
