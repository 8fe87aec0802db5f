"""Update blocks of RAFT (section 3.3) and GMA (section 3): motion encoder, recurrent unit, flow head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ffplug.errors import ConfigError
from ffplug.models.layers import Conv2d, PointwiseConv2d, in_layout_of
from ffplug.models.parts import Update
from ffplug.ops import attention_weights, batched_row_product
from ffplug.registry import MODELS


class MotionEncoder(BaseModule):
    """Cost features and flow to motion features, whose last two channels are the flow itself.

    Args:
        cost_channels: channels of the cost features.
        cost_widths: channels of the 1×1 convolution on the cost, and of the 3×3 one after it if there is a second.
        flow_widths: channels of the 7×7 and the 3×3 convolution on the flow.
        out_channels: channels of the result, the two of the flow included.
    """

    def __init__(
        self, cost_channels: int, cost_widths: Sequence[int], flow_widths: Sequence[int], out_channels: int
    ) -> None:
        super().__init__()
        self.cost_in = PointwiseConv2d(cost_channels, cost_widths[0], activation="relu")
        self.cost_out = Conv2d(*cost_widths, activation="relu") if len(cost_widths) == 2 else None
        self.flow_in = Conv2d(2, flow_widths[0], (7, 7), activation="relu")
        self.flow_out = Conv2d(*flow_widths, activation="relu")
        self.fuse = Conv2d(cost_widths[-1] + flow_widths[-1], out_channels - 2, activation="relu")

    def forward(self, cost: Tensor, flow: Tensor) -> Tensor:
        """Cost features N×C×h×w, low-resolution flow N×2×h×w -> N×out_channels×h×w."""
        cost = self.cost_in(cost)
        flow = in_layout_of(cost, flow.to(cost.dtype))
        if self.cost_out is not None:
            cost = self.cost_out(cost)
        motion = self.flow_out(self.flow_in(flow))
        fused = self.fuse(torch.cat((cost, motion), dim=1))
        return torch.cat((fused, flow), dim=1)


class ConvGRUCell(nn.Module):
    """A convolutional gated recurrent unit whose input is part constant (the context), part changing.

    The three gates' share of the context is one convolution that runs once per pair (:meth:`prepare`); update and
    reset gate share their input, so they are one convolution too.

    Args:
        hidden: channels of the hidden state.
        inputs: channels of the changing input.
        context: channels of the constant input.
        kernel_size: height and width of the kernels, odd.
    """

    def __init__(self, hidden: int, inputs: int, context: int, kernel_size: tuple[int, int]) -> None:
        super().__init__()
        self.constant = Conv2d(context, 3 * hidden, kernel_size)
        self.gates = Conv2d(hidden + inputs, 2 * hidden, kernel_size, bias=False, activation="sigmoid")
        self.candidate = Conv2d(hidden + inputs, hidden, kernel_size, bias=False, activation="tanh")
        # The convolutions are slices of one over all inputs: they start as that one would (PyTorch's default).
        bound = 1 / math.sqrt((hidden + inputs + context) * kernel_size[0] * kernel_size[1])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def prepare(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Context N×context×h×w -> its share of the gates N×2·hidden×h×w and of the candidate N×hidden×h×w."""
        share = self.constant(context)
        hidden = share.shape[1] // 3
        gates, candidate = (in_layout_of(share, part) for part in share.split((2 * hidden, hidden), dim=1))
        return gates, candidate

    def forward(self, hidden: Tensor, inputs: Tensor, constant: tuple[Tensor, Tensor]) -> Tensor:
        """Hidden state and changing input -> next hidden state N×hidden×h×w."""
        both = torch.cat((hidden, inputs), dim=1)
        update, reset = self.gates(both, constant[0]).chunk(2, dim=1)
        if torch.is_grad_enabled():
            both = torch.cat((reset * hidden, inputs), dim=1)
        else:
            both[:, : hidden.shape[1]] *= reset
        candidate = self.candidate(both, constant[1])
        return torch.lerp(hidden.to(candidate.dtype), candidate, update)


class ConvGRU(nn.ModuleList):
    """One or more :class:`ConvGRUCell` after another: ``separable`` is 1×5 then 5×1, else one 3×3."""

    def __init__(self, hidden: int, inputs: int, context: int, separable: bool) -> None:
        kernels = [(1, 5), (5, 1)] if separable else [(3, 3)]
        super().__init__(ConvGRUCell(hidden, inputs, context, kernel) for kernel in kernels)

    def prepare(self, context: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The context's share of every cell."""
        return [cell.prepare(context) for cell in self]

    def forward(self, hidden: Tensor, inputs: Tensor, constant: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Hidden state N×hidden×h×w and changing input -> next hidden state."""
        for cell, share in zip(self, constant, strict=True):
            hidden = cell(hidden, inputs, share)
        return hidden


class FlowHead(nn.Sequential):
    """Hidden state N×C×h×w -> residual low-resolution flow N×2×h×w."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__(Conv2d(hidden, width, activation="relu"), Conv2d(width, 2))


@MODELS.register_module()
class RAFTUpdate(Update):
    """RAFT's update block.

    Args:
        cost_channels: channels of the cost's look-up.
        hidden_channels: channels of the hidden state.
        input_channels: channels of the context that the recurrent unit reads.
        cost_widths: see :class:`MotionEncoder`.
        flow_widths: see :class:`MotionEncoder`.
        motion_channels: channels of the motion features, the flow's two included.
        head_width: channels inside the flow head.
        separable: 1×5 and 5×1 recurrent units (large) or one 3×3 (small).
        project_context: channels of the context when a 1×1 convolution maps it to hidden and input first
            (FlowFormer), or None to read it as it is.
        init_cfg: see MMEngine's ``BaseModule``.
    """

    def __init__(
        self,
        cost_channels: int = 324,
        hidden_channels: int = 128,
        input_channels: int = 128,
        cost_widths: Sequence[int] = (256, 192),
        flow_widths: Sequence[int] = (128, 64),
        motion_channels: int = 128,
        head_width: int = 256,
        separable: bool = True,
        project_context: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.cost_channels = cost_channels
        self.hidden_channels = hidden_channels
        self.input_channels = input_channels
        self.context_channels = project_context or hidden_channels + input_channels
        self.project = (
            PointwiseConv2d(project_context, hidden_channels + input_channels) if project_context else nn.Identity()
        )
        self.motion_encoder = MotionEncoder(cost_channels, cost_widths, flow_widths, motion_channels)
        self.gru = ConvGRU(hidden_channels, self._changing_channels(motion_channels), input_channels, separable)
        self.flow_head = FlowHead(hidden_channels, head_width)

    def _changing_channels(self, motion_channels: int) -> int:
        return motion_channels

    def prepare(self, context: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Context N×C×h×w -> hidden state (tanh of the first channels) and the constant part of the unit."""
        hidden, inputs = self.project(context).split((self.hidden_channels, self.input_channels), dim=1)
        inputs = torch.relu(inputs)
        return torch.tanh(hidden), {"gru": self.gru.prepare(inputs), **self._prepare_inputs(inputs)}

    def _prepare_inputs(self, inputs: Tensor) -> dict[str, Any]:
        return {}

    def _changing_inputs(self, motion: Tensor, constant: dict[str, Any]) -> Tensor:
        return motion

    def forward(self, hidden: Tensor, cost: Tensor, flow: Tensor, constant: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """One update; see :class:`ffplug.models.parts.Update`."""
        motion = self.motion_encoder(cost, flow)
        hidden = self.gru(hidden, self._changing_inputs(motion, constant), constant["gru"])
        return hidden, self.flow_head(hidden).to(flow.dtype)


class RelativePosition(nn.Module):
    """Decomposed relative position embedding of GMA, over a window of ``size`` cells in each direction."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.size = size
        self.height = nn.Embedding(2 * size - 1, channels)
        self.width = nn.Embedding(2 * size - 1, channels)

    def _table(self, embedding: nn.Embedding, length: int) -> Tensor:
        steps = torch.arange(length, device=embedding.weight.device)
        return embedding(steps[None, :] - steps[:, None] + self.size - 1)  # query × key × channels

    def forward(self, query: Tensor) -> Tensor:
        """N×heads×h×w×C -> position logits N×heads×(h·w)×(h·w)."""
        height, width = query.shape[2:4]
        if max(height, width) > self.size:
            raise ValueError(
                f"a grid of {height}×{width} cells is beyond the position embedding's {self.size}: "
                "use tiled inference, or a model whose attention reads content only"
            )
        rows = torch.einsum("nhxyc,xuc->nhxyu", query, self._table(self.height, height))
        columns = torch.einsum("nhxyc,yvc->nhxyv", query, self._table(self.width, width))
        return (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)


class GlobalMotionAttention(nn.Module):
    """Attention of GMA over all cells of frame 1, computed from the context once per pair.

    Args:
        channels: channels of the context input, and of each head.
        heads: number of heads.
        content: add the query-key product to the logits.
        position: add the relative position embedding to the logits.
        max_size: cells that the position embedding covers in each direction.
    """

    def __init__(self, channels: int, heads: int, content: bool, position: bool, max_size: int = 160) -> None:
        super().__init__()
        if not (content or position):
            raise ValueError("content=False, position=False: attention needs at least one of them")
        self.heads = heads
        self.content = content
        self.query_key = PointwiseConv2d(channels, 2 * heads * channels, bias=False)
        self.position = RelativePosition(max_size, channels) if position else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Context input N×C×h×w -> attention N×heads×(h·w)×(h·w), rows sum up to one."""
        count, channels, height, width = inputs.shape
        rows = self.query_key(inputs).permute(0, 2, 3, 1).reshape(count, -1, 2, self.heads, channels)
        query, key = rows.permute(2, 0, 3, 1, 4)
        query = query * channels**-0.5
        if self.position is None:
            return attention_weights(query, key)
        logits = self.position(query.reshape(count, self.heads, height, width, channels))
        if self.content:
            logits = logits + batched_row_product(query, key)
        return logits.softmax(dim=-1)


class MotionAggregator(nn.Module):
    """Motion features of all cells, gathered by attention and added with a learned weight that starts at zero."""

    def __init__(self, channels: int, head_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.value = PointwiseConv2d(channels, heads * head_channels, bias=False)
        inner = heads * head_channels
        self.project = PointwiseConv2d(inner, channels, bias=False) if inner != channels else nn.Identity()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, motion: Tensor, attention: Tensor) -> Tensor:
        """Motion N×C×h×w, attention N×heads×(h·w)×(h·w) -> N×C×h×w."""
        count, _, height, width = motion.shape
        value = self.value(motion).view(count, self.heads, -1, height * width)
        gathered = batched_row_product(attention.to(value.dtype), value)  # N×heads×(h·w)×C
        gathered = gathered.transpose(1, 2).reshape(count, height, width, -1).permute(0, 3, 1, 2)
        return motion + self.weight * self.project(gathered)


@MODELS.register_module()
class GMAUpdate(RAFTUpdate):
    """GMA's update block: RAFT's, with motion aggregated over the frame by attention from the context.

    Args:
        heads: attention heads.
        content: attention reads content (GMA's default).
        position: attention reads relative position; with ``content=False`` GMA's position-only variant.
        max_size: cells that the position embedding covers in each direction.
        own_attention: compute the attention. A further decoder with False takes that of the main decoder's block.
        **kwargs: those of :class:`RAFTUpdate`.
    """

    quadratic = True  # the attention matrix

    def __init__(
        self,
        heads: int = 1,
        content: bool = True,
        position: bool = False,
        max_size: int = 160,
        own_attention: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        motion_channels = self.motion_encoder.fuse.out_channels + 2
        self.attention = (
            GlobalMotionAttention(self.input_channels, heads, content, position, max_size) if own_attention else None
        )
        self.aggregator = MotionAggregator(motion_channels, self.input_channels, heads)

    def _changing_channels(self, motion_channels: int) -> int:
        return 2 * motion_channels

    def _prepare_inputs(self, inputs: Tensor) -> dict[str, Any]:
        return {"attention": self.attention(inputs)} if self.attention is not None else {}

    def prepare(self, context: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Context N×C×h×w -> hidden state and the constant part, which holds the attention.

        Raises:
            ConfigError: the block has no attention of its own, and is not in a further decoder.
        """
        if self.attention is None:
            raise ConfigError(
                "GMAUpdate(own_attention=False) takes the attention of the main decoder's update block, so it belongs "
                "into one of the estimator's further decoders"
            )
        return super().prepare(context)

    def prepare_beside(self, context: Tensor, main: Any) -> tuple[Tensor, dict[str, Any]]:
        """As :meth:`prepare`, with the main decoder's attention where this block has none of its own.

        Raises:
            ConfigError: the main decoder's block has no attention, or one of another number of heads.
        """
        if self.attention is not None:
            return self.prepare(context)
        attention = main.get("attention") if isinstance(main, dict) else None
        if attention is None or attention.shape[1] != self.aggregator.heads:
            found = "has none" if attention is None else f"has {attention.shape[1]}"
            raise ConfigError(
                f"GMAUpdate(own_attention=False) needs attention of {self.aggregator.heads} head(s) in the main "
                f"decoder's update block, which {found}: use ffplug.GMAUpdate there, or own_attention=True here"
            )
        hidden, constant = super().prepare(context)
        return hidden, {**constant, "attention": attention}

    def _changing_inputs(self, motion: Tensor, constant: dict[str, Any]) -> Tensor:
        return torch.cat((motion, self.aggregator(motion, constant["attention"])), dim=1)
