"""The refinement of a blended frame by features of both frames (RIFE, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ffplug_ugsp.models.layers import ContextPyramid, ConvPReLU, UpPReLU, resize, warp


class Refinement(nn.Module):
    """A U-Net over frames, warped frames, blending weights and flow, with features of both frames at every size.

    Args:
        width: channels of the finest features.
        warped: warp the features by the flow before they are used.
    """

    def __init__(self, width: int = 10, warped: bool = False) -> None:
        super().__init__()
        self.warped = warped
        self.context = ContextPyramid((width, 2 * width, 4 * width, 8 * width))
        down = [(17, 2 * width), (4 * width, 4 * width), (8 * width, 8 * width), (16 * width, 16 * width)]
        self.down = nn.ModuleList(
            nn.Sequential(ConvPReLU(inputs, outputs, 2), ConvPReLU(outputs, outputs)) for inputs, outputs in down
        )
        up = [(32 * width, 8 * width), (16 * width, 4 * width), (8 * width, 2 * width), (4 * width, width)]
        self.up = nn.ModuleList(UpPReLU(inputs, outputs) for inputs, outputs in up)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(
        self, frame0: Tensor, frame1: Tensor, warped0: Tensor, warped1: Tensor, blend: Tensor, flow: Tensor
    ) -> Tensor:
        """What to add to the blended frame, N×3×H×W in -1..1.

        Args:
            frame0: N×3×H×W.
            frame1: the second.
            warped0: the first, warped.
            warped1: the second, warped.
            blend: N×1×H×W, weights of the first frame, or their logits.
            flow: N×4×H×W.
        """
        context0 = self._context(frame0, flow[:, :2])
        context1 = self._context(frame1, flow[:, 2:])
        x, skips = torch.cat((frame0, frame1, warped0, warped1, blend, flow), dim=1), []
        for place, down in enumerate(self.down):
            x = down(x if place == 0 else torch.cat((x, context0[place - 1], context1[place - 1]), dim=1))
            skips.append(x)
        y = torch.cat((skips.pop(), context0[3], context1[3]), dim=1)
        for up in self.up:
            y = up(y)
            if skips:
                y = torch.cat((y, skips.pop()), dim=1)
        return 2 * torch.sigmoid(self.last(y)) - 1

    def _context(self, frame: Tensor, flow: Tensor) -> list[Tensor]:
        features = self.context(frame)
        if not self.warped:
            return features
        warped = []
        for feature in features:
            flow = 0.5 * resize(flow, 0.5)
            warped.append(warp(feature, flow))
        return warped
