"""IFRNet (Kong et al., CVPR 2022): flow and an intermediate feature refined together, coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ffplug_ugsp.models.interpolator import InterpolationNetwork
from ffplug_ugsp.models.layers import ContextPyramid, ConvPReLU, centre, resize, warp
from ffplug_ugsp.registry import MODELS


class ResidualBlock(nn.Module):
    """Five convolutions, of which two see only the last channels (IFRNet, section 3.2).

    Args:
        width: channels.
        side: how many of them the side convolutions see.
    """

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.first, self.first_side = ConvPReLU(width, width), ConvPReLU(side, side)
        self.second, self.second_side = ConvPReLU(width, width), ConvPReLU(side, side)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        self.slope = nn.Parameter(torch.full((width,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """N×width×H×W -> the same."""
        y = x
        for layer, side in ((self.first, self.first_side), (self.second, self.second_side)):
            y = layer(y)
            y = torch.cat((y[:, : -self.side], side(y[:, -self.side :])), dim=1)
        return nn.functional.prelu(x + self.last(y), self.slope)


class Decoder(nn.Sequential):
    """One level: a convolution, a residual block, and a transposed convolution that doubles the size."""

    def __init__(self, inputs: int, width: int, outputs: int, side: int) -> None:
        up = nn.ConvTranspose2d(width, outputs, 4, 2, 1)
        super().__init__(ConvPReLU(inputs, width), ResidualBlock(width, side), up)


@MODELS.register_module()
class IFRNet(InterpolationNetwork):
    """The network, base size by default.

    Args:
        widths: channels of the encoder's four stages.
        decoder_widths: channels of the decoder's four levels, coarsest first.
        side: channels that the side convolutions see.
        kernel: side of the first convolution's kernel.
        any_timestep: whether it was trained for any time; weights trained on triplets ignore it.
        scale: see :meth:`find_flow_at`.

    Example:
        dict(type="ffplug_ugsp.IFRNet")
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 48, 72, 96),
        decoder_widths: Sequence[int] = (192, 216, 144, 96),
        side: int = 32,
        kernel: int = 3,
        any_timestep: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.any_timestep = any_timestep
        self.find_flow_at(scale)
        self.encoder = ContextPyramid(tuple(widths), kernel)
        inputs = (2 * widths[3] + 1, *(3 * width + 4 for width in widths[2::-1]))
        outputs = (*(width + 4 for width in widths[2::-1]), 8)
        self.decoders = nn.ModuleList(
            Decoder(*sizes, side) for sizes in zip(inputs, decoder_widths, outputs, strict=True)
        )

    def find_flow_at(self, scale: float) -> None:
        """See the base class; what is added to the blended frame is found there, too."""
        self.multiple, self.scale = self._multiple_at(scale, 16), scale

    def outputs(self, frame0: Tensor, frame1: Tensor, timestep: Tensor, target: Tensor | None = None) -> dict[str, Any]:
        """The frame, the accumulated flows and the intermediate features.

        Returns:
            ``frame`` N×3×H×W in 0..1; ``flows``, one of each level, coarsest first: N×4×h×w, of the frame to produce to
            the first and to the second, in pixels of its grid; ``features``, those of the frame to produce at 1/8, 1/4
            and 1/2; ``target_features``, those of the true frame, if it is given; ``decoded``, what each level gives.
        """
        frame0, frame1, mean = centre(frame0, frame1)
        small0, small1 = (frame if self.scale == 1 else resize(frame, self.scale) for frame in (frame0, frame1))
        features0, features1 = self.encoder(small0), self.encoder(small1)
        plane = timestep.to(frame0.dtype).view(-1, 1, 1, 1).expand_as(features0[3][:, :1])
        decoded = [self.decoders[0](torch.cat((features0[3], features1[3], plane), dim=1))]
        flows = [decoded[0][:, :4]]
        for decoder, feature0, feature1 in zip(self.decoders[1:], features0[2::-1], features1[2::-1], strict=True):
            flow, feature = flows[-1], decoded[-1][:, 4:]
            warped = warp(feature0, flow[:, :2]), warp(feature1, flow[:, 2:])
            decoded.append(decoder(torch.cat((feature, *warped, flow), dim=1)))
            flows.append(decoded[-1][:, :4] + 2 * resize(flow, 2))
        flow, blend, residual = flows[-1], torch.sigmoid(decoded[-1][:, 4:5]), decoded[-1][:, 5:]
        if self.scale != 1:
            flow, blend, residual = (resize(part, 1 / self.scale) for part in (flow / self.scale, blend, residual))
        warped0, warped1 = warp(frame0, flow[:, :2]), warp(frame1, flow[:, 2:])
        frame = blend * warped0 + (1 - blend) * warped1 + mean + residual
        found = dict(frame=frame.clamp(0, 1), flows=flows, decoded=decoded)
        found["features"] = [level[:, 4:] for level in decoded[:3]]
        if target is not None:
            found["target_features"] = self.encoder(target - mean)[2::-1]
        return found
