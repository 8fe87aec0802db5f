"""Update block of SKFlow (Sun et al., NeurIPS 2022): large depth-wise kernels in place of small dense ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ffplug.models.layers import PointwiseConv2d, in_layout_of
from ffplug.models.parts import Update
from ffplug.models.update import GlobalMotionAttention, MotionAggregator
from ffplug.ops import add_gelu, depthwise_conv2d
from ffplug.registry import MODELS


def _residual_gelu(x: Tensor, y: Tensor) -> Tensor:
    # In training torch's own operations keep what their gradients need; the op would compute it again.
    return F.gelu(x + y) if torch.is_grad_enabled() else add_gelu(x, y)


class SuperKernelBlock(nn.Module):
    """Residual pointwise, depth-wise and pointwise convolutions, each with a GELU, and a perceptron (section 3.3).

    Args:
        inputs: channels of the input.
        outputs: channels of the result.
        kernel_sizes: of the depth-wise convolutions, odd.
        ratio: channels inside the two perceptrons over ``inputs``.
    """

    def __init__(self, inputs: int, outputs: int, kernel_sizes: Sequence[int], ratio: float = 1.5) -> None:
        super().__init__()
        inner = int(ratio * inputs)
        self.expand = nn.Sequential(PointwiseConv2d(inputs, inner, activation="gelu"), PointwiseConv2d(inner, inputs))
        self.depthwise = nn.ModuleList(
            nn.Conv2d(inputs, inputs, size, padding=size // 2, groups=inputs) for size in kernel_sizes
        )
        self.pointwise = PointwiseConv2d(inputs, inputs)
        self.project = nn.Sequential(PointwiseConv2d(inputs, inner, activation="gelu"), PointwiseConv2d(inner, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×h×w -> N×outputs×h×w."""
        x = _residual_gelu(x, self.expand(x))
        for conv in self.depthwise:
            if torch.is_grad_enabled():
                x = F.gelu(x + conv(x))
            else:
                x = depthwise_conv2d(x, conv.weight, conv.bias, residual=True, activation="gelu")
        x = _residual_gelu(x, self.pointwise(x))
        return self.project(x)


class SuperKernelMotionEncoder(BaseModule):
    """Cost features and flow to motion features, whose last two channels are the flow itself.

    Args:
        cost_channels: channels of the cost features.
        kernel_sizes: of the depth-wise convolutions.
        out_channels: channels of the result, the two of the flow included.
    """

    def __init__(self, cost_channels: int, kernel_sizes: Sequence[int], out_channels: int = 128) -> None:
        super().__init__()
        self.cost_in = SuperKernelBlock(cost_channels, 256, kernel_sizes)
        self.cost_out = SuperKernelBlock(256, 192, kernel_sizes)
        self.flow_in = PointwiseConv2d(2, 128)
        self.flow_out = SuperKernelBlock(128, 64, kernel_sizes)
        self.fuse = SuperKernelBlock(192 + 64, out_channels - 2, kernel_sizes)

    def forward(self, cost: Tensor, flow: Tensor) -> Tensor:
        """Cost features N×C×h×w, low-resolution flow N×2×h×w -> N×out_channels×h×w."""
        cost = self.cost_out(F.gelu(self.cost_in(cost)))
        flow = in_layout_of(cost, flow.to(cost.dtype))
        motion = self.flow_out(self.flow_in(flow))
        return torch.cat((self.fuse(torch.cat((cost, motion), dim=1)), flow), dim=1)


@MODELS.register_module()
class SKUpdate(Update):
    """SKFlow's update block: super-kernel blocks throughout, with GMA's aggregation of motion.

    Args:
        cost_channels: channels of the cost's look-up.
        hidden_channels: channels of the hidden state.
        input_channels: channels of the context that the block reads.
        kernel_sizes: of the depth-wise convolutions in motion encoder and flow head.
        update_kernel_sizes: of those in the block that makes the hidden state.
        heads: attention heads.
        init_cfg: see MMEngine's ``BaseModule``.
    """

    quadratic = True  # the attention matrix

    def __init__(
        self,
        cost_channels: int = 324,
        hidden_channels: int = 128,
        input_channels: int = 128,
        kernel_sizes: Sequence[int] = (1, 15),
        update_kernel_sizes: Sequence[int] = (1, 7),
        heads: int = 1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.cost_channels = cost_channels
        self.hidden_channels = hidden_channels
        self.input_channels = input_channels
        self.context_channels = hidden_channels + input_channels
        motion_channels = 128
        self.motion_encoder = SuperKernelMotionEncoder(cost_channels, kernel_sizes, motion_channels)
        self.attention = GlobalMotionAttention(input_channels, heads, content=True, position=False)
        self.aggregator = MotionAggregator(motion_channels, input_channels, heads)
        self.update = SuperKernelBlock(
            hidden_channels + input_channels + 2 * motion_channels, hidden_channels, update_kernel_sizes
        )
        self.flow_head = SuperKernelBlock(hidden_channels, 2, kernel_sizes)

    def prepare(self, context: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Context N×C×h×w -> hidden state (tanh of the first channels), and input and attention of the block."""
        hidden, inputs = context.split((self.hidden_channels, self.input_channels), dim=1)
        inputs = torch.relu(inputs)
        return torch.tanh(hidden), {"inputs": inputs, "attention": self.attention(inputs)}

    def forward(self, hidden: Tensor, cost: Tensor, flow: Tensor, constant: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """One update; see :class:`ffplug.models.parts.Update`."""
        motion = self.motion_encoder(cost, flow)
        gathered = self.aggregator(motion, constant["attention"])
        hidden = self.update(torch.cat((hidden, constant["inputs"], motion, gathered), dim=1))
        return hidden, self.flow_head(hidden).to(flow.dtype)
