"""MVFlow's Motion-Vector Converting Module: from blocks of motion vectors to a first flow, and how far to trust it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.models.layers import Conv2d, PointwiseConv2d, in_layout_of
from ffplug.models.parts import Cost, Encoded, FrameEncoder, Lookup, Start
from ffplug.ops import backward_warp
from ffplug_mvflow.models.motion import Motion, MotionPrior, median
from ffplug_mvflow.registry import MODELS

_WINDOW = 7
_HAND = 3


@MODELS.register_module()
class MotionVectorPrior(MotionPrior):
    """The Motion-Vector Converting Module with its credibility block (MVFlow, ACM MM 2023).

    Of the module the paper tells what it does, not its layers; these are ours. From the vectors, the matching cost at
    their targets, the difference of the features there, the context and three measured cues it estimates each vector's
    credibility, smooths and fills the field by credibility over 7×7 cells in two rounds (the second twice as wide), and
    adds a learned residual. What it found is added to the context too, so that every iteration knows of it.

    The last layers of residual and context start at zero: at first the network equals the one without the prior,
    started from the smoothed vectors. For a pair without vectors it equals that network always.

    With a warm start (a given first flow), that serves where credibility is below ``warm_below``.

    Args:
        width: channels of the features of vectors and evidence.
        warm_below: see above.
        b_frames: whether videos may have B frames.
        search: see :class:`ffplug_mvflow.video.MotionVectorVideo`.
        init_cfg: see MMEngine's ``BaseModule``.

    Example:
        dict(type="ffplug_mvflow.MotionVectorPrior")
    """

    def __init__(
        self,
        width: int = 64,
        warm_below: float = 0.3,
        b_frames: bool = True,
        search: bool | str = "auto",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(b_frames, search, init_cfg)
        self.width = width
        self.warm_below = warm_below
        both = 4 * width + _HAND
        self.vectors = nn.Sequential(
            Conv2d(5, width, (7, 7), activation="relu"), Conv2d(width, width, activation="relu")
        )
        self.credibility = nn.Sequential(
            Conv2d(both, 2 * width, activation="relu"),
            Conv2d(2 * width, width, activation="relu"),
            Conv2d(width, 1),
        )
        self.weights = nn.Sequential(Conv2d(both, width, activation="relu"), Conv2d(width, 2 * _WINDOW**2))
        self.residual = nn.Sequential(Conv2d(both + 2, width, activation="relu"), Conv2d(width, 2))
        nn.init.zeros_(self.residual[-1].weight)
        nn.init.zeros_(self.residual[-1].bias)
        nn.init.zeros_(self.weights[-1].weight)
        nn.init.constant_(self.credibility[-1].bias, 1.0)
        # Near cells count more at first: a plain mean would smear edges.
        offset = torch.arange(_WINDOW) - _WINDOW // 2
        nearness = -2.0 * (offset[:, None] ** 2 + offset**2).flatten().float()
        with torch.no_grad():
            self.weights[-1].bias.copy_(nearness.repeat(2))

    def connect(self, encoder: FrameEncoder, context_encoder: FrameEncoder, cost: Cost) -> None:
        """Make the layers that read cost, features and context; see :class:`ffplug.models.parts.Prior`."""
        super().connect(encoder, context_encoder, cost)
        self.from_cost = PointwiseConv2d(cost.out_channels, self.width, activation="relu")
        self.from_features = PointwiseConv2d(encoder.out_channels, self.width, activation="relu")
        self.from_context = PointwiseConv2d(context_encoder.out_channels, self.width, activation="relu")
        self.to_context = PointwiseConv2d(self.width + 3, context_encoder.out_channels)
        nn.init.zeros_(self.to_context.weight)
        nn.init.zeros_(self.to_context.bias)

    def forward(self, encoded: Encoded, lookup: Lookup, flow_init: Tensor | None) -> Start:
        """See :class:`ffplug.models.parts.Prior`; its memory also tells the vectors, for the loss."""
        motion = self.motion(encoded)
        if "motion_flow" not in encoded.inputs and not torch.is_grad_enabled():
            start = motion.flow if flow_init is None else flow_init.to(motion.flow)
            return Start(start, encoded.context, {"credibility": motion.valid})
        gap, size = motion.gap, (motion.size / 8 - 0.75) * motion.valid
        known = self.vectors(torch.cat((motion.flow, motion.valid, gap, size), dim=1).to(encoded.context.dtype))
        with torch.autocast(known.device.type, enabled=False):
            there = backward_warp(encoded.feature2.float(), motion.flow)
            difference = (encoded.feature1.float() - there).abs()
            hand = self._measure(encoded, motion)
        evidence = torch.cat(
            (
                known,
                self.from_cost(lookup(motion.flow)),
                self.from_features(difference.to(encoded.feature1.dtype)),
                self.from_context(encoded.context.relu()),
                hand.to(known.dtype),
            ),
            dim=1,
        )
        credibility = self.credibility(evidence).float().sigmoid() * motion.valid
        weights = self.weights(evidence).float()
        smooth, trust = motion.flow, credibility
        for dilation, logits in zip((1, 2), weights.chunk(2, dim=1), strict=True):
            smooth, trust = _gather(smooth, trust, logits, dilation)
        residual = self.residual(torch.cat((evidence, smooth.to(evidence.dtype)), dim=1)).float()
        present = motion.valid.flatten(1).amax(dim=1).view(-1, 1, 1, 1)
        first = (smooth + residual) * present
        told = self.to_context(torch.cat((known, first.to(known.dtype), credibility.to(known.dtype)), dim=1))
        context = encoded.context + in_layout_of(encoded.context, told * present.to(told.dtype))
        memory = {
            "credibility": credibility,
            "first_flow": first,
            "motion_flow": motion.flow,
            "motion_valid": motion.valid,
        }
        flow = first
        if flow_init is not None:
            flow = torch.where(credibility >= self.warm_below, first, flow_init.to(first))
        return Start(flow, context, memory)

    def _measure(self, encoded: Encoded, motion: Motion) -> Tensor:
        """Cues that tell wrong vectors best: deviation from the median, and photometric error over texture."""
        away = (motion.flow - median(motion.flow, motion.valid, 5)) * motion.valid
        small = [F.avg_pool2d(image.float(), self.stride) for image in (encoded.image1, encoded.image2)]
        error = (small[0] - backward_warp(small[1], motion.flow, "border")).abs().mean(dim=1, keepdim=True)
        texture = _least_texture(encoded.image1.float().mean(dim=1, keepdim=True), self.stride)
        return torch.cat((away, (error / (texture + 0.5)).log1p() * motion.valid), dim=1)


def _least_texture(grey: Tensor, stride: int) -> Tensor:
    """Root of the structure tensor's lesser eigenvalue: grey levels per pixel in the flattest direction of a cell."""
    x = F.pad(grey[..., 2:] - grey[..., :-2], (1, 1)) / 2
    y = F.pad(grey[..., 2:, :] - grey[..., :-2, :], (0, 0, 1, 1)) / 2
    xx, yy, xy = F.avg_pool2d(torch.cat((x * x, y * y, x * y), dim=1), stride).split(1, dim=1)
    middle, apart = (xx + yy) / 2, (((xx - yy) / 2) ** 2 + xy**2).sqrt()
    return (middle - apart).clamp(min=0).sqrt()


def _gather(flow: Tensor, trust: Tensor, logits: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """Mean of flow and trust over a window, by ``softmax(logits + log trust)``.

    Args:
        flow: N×2×h×w.
        trust: N×1×h×w in 0..1.
        logits: N×49×h×w.
        dilation: distance of the window's cells.
    """
    count, _, height, width = flow.shape
    around = {"dilation": dilation, "padding": dilation * (_WINDOW // 2)}
    trusts = F.unfold(trust, _WINDOW, **around).view(count, 1, -1, height, width)
    flows = F.unfold(flow, _WINDOW, **around).view(count, 2, -1, height, width)
    shares = (logits[:, None] + (trusts + 1e-6).log()).softmax(dim=2)
    return (shares * flows).sum(dim=2), (shares * trusts).sum(dim=2)
