"""RIFE (Huang et al., ECCV 2022): flow from the frame between, in three steps at rising resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ffplug_ugsp.models.interpolator import InterpolationNetwork
from ffplug_ugsp.models.layers import ConvPReLU, resize, warp
from ffplug_ugsp.models.refinement import Refinement
from ffplug_ugsp.registry import MODELS


class FlowBlock(nn.Module):
    """One step: a change of flow and of the blending logit, found on a smaller grid.

    Args:
        inputs: channels of frames and what belongs to them, without flow.
        width: channels of the convolutions.
        flow: it takes flow so far.
    """

    def __init__(self, inputs: int, width: int, flow: bool = True) -> None:
        super().__init__()
        self.shrink = nn.Sequential(ConvPReLU(inputs + 4 * flow, width // 2, 2), ConvPReLU(width // 2, width, 2))
        self.layers = nn.Sequential(*(ConvPReLU(width, width) for _ in range(8)))
        self.last = nn.ConvTranspose2d(width, 5, 4, 2, 1)

    def forward(self, x: Tensor, flow: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
        """Find the changes at 1/scale of the size.

        Args:
            x: N×inputs×H×W.
            flow: N×4×H×W, or None.
            scale: how many times smaller the grid of its input is.

        Returns:
            N×4×H×W and N×1×H×W.
        """
        if flow is not None:
            x = torch.cat((x, flow), dim=1)
        if scale != 1:
            x = resize(x, 1 / scale)
        if flow is not None and scale != 1:
            x = torch.cat((x[:, :-4], x[:, -4:] / scale), dim=1)
        x = self.shrink(x)
        y = resize(self.last(self.layers(x) + x), 2 * scale)
        return 2 * scale * y[:, :4], y[:, 4:]


@MODELS.register_module()
class IFNet(InterpolationNetwork):
    """RIFE's network with its refinement: 10,071,550 parameters, and a teacher that only training runs.

    Args:
        widths: channels of the three blocks.
        scales: how many times smaller their grids are.
        any_timestep: take the time as one more plane (the published model "m").
        teacher: have a block that sees the true frame, to learn from.

    Example:
        dict(type="ffplug_ugsp.IFNet")
    """

    multiple = 32

    def __init__(
        self,
        widths: Sequence[int] = (240, 150, 90),
        scales: Sequence[int] = (4, 2, 1),
        any_timestep: bool = False,
        teacher: bool = True,
    ) -> None:
        super().__init__()
        self.any_timestep, self.scales = any_timestep, tuple(scales)
        self._scales = self.scales
        plane = int(any_timestep)
        inputs = (6 + plane, 13 + plane, 13 + plane)
        self.blocks = nn.ModuleList(
            FlowBlock(count, width, place > 0) for place, (count, width) in enumerate(zip(inputs, widths, strict=True))
        )
        self.teacher = FlowBlock(16 + plane, widths[2]) if teacher else None
        self.refinement = Refinement(16, warped=True)

    def find_flow_at(self, scale: float) -> None:
        """See the base class; the frame is refined at its own size."""
        self.multiple, self.scales = self._multiple_at(scale, 32), tuple(one / scale for one in self._scales)

    def outputs(self, frame0: Tensor, frame1: Tensor, timestep: Tensor, target: Tensor | None = None) -> dict[str, Any]:
        """The frame and every step.

        Returns:
            ``frame`` N×3×H×W in 0..1; ``flows`` (also as ``full_flows``) and ``merged``, the flow N×4×H×W in pixels and
            the blended frame after each block; ``blend`` N×1×H×W. With a ``target`` and a teacher there are
            ``teacher_flow`` and ``teacher_frame``.
        """
        base = (frame0, frame1)
        if self.any_timestep:
            base = (*base, timestep.to(frame0.dtype).view(-1, 1, 1, 1).expand_as(frame0[:, :1]))
        flow, logit = self.blocks[0](torch.cat(base, dim=1), None, self.scales[0])
        found: dict[str, Any] = dict(flows=[flow], merged=[])
        warped, merged = _merge(frame0, frame1, flow, logit)
        found["merged"].append(merged)
        for block, scale in zip(self.blocks[1:], self.scales[1:], strict=True):
            change, logit_change = block(torch.cat((*base, *warped, logit), dim=1), flow, scale)
            flow, logit = flow + change, logit + logit_change
            warped, merged = _merge(frame0, frame1, flow, logit)
            found["flows"].append(flow)
            found["merged"].append(merged)
        found["full_flows"], found["blend"] = found["flows"], torch.sigmoid(logit)
        if target is not None and self.teacher is not None:
            change, logit_change = self.teacher(torch.cat((*base, *warped, logit, target), dim=1), flow, 1)
            found["teacher_flow"] = flow + change
            _, found["teacher_frame"] = _merge(frame0, frame1, flow + change, logit + logit_change)
        found["frame"] = (merged + self.refinement(frame0, frame1, *warped, logit, flow)).clamp(0, 1)
        return found


def _merge(frame0: Tensor, frame1: Tensor, flow: Tensor, logit: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Both frames warped, and their blend."""
    warped = warp(frame0, flow[:, :2]), warp(frame1, flow[:, 2:])
    blend = torch.sigmoid(logit)
    return warped, blend * warped[0] + (1 - blend) * warped[1]
