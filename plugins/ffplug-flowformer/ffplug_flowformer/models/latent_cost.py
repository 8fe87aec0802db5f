"""FlowFormer's cost: a memory of latent tokens for each source pixel, queried in every iteration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ffplug.errors import ConfigError
from ffplug.models.layers import Linear
from ffplug.models.parts import Cost, Encoded
from ffplug.ops import batched_row_product, corr_lookup
from ffplug_flowformer.models.attention import at_least_float32, attend, perceptron, sine_embedding
from ffplug_flowformer.models.cost_tokens import CostPatchEmbedding, LatentSummary
from ffplug_flowformer.models.group_transformer import AlternateGroupLayer
from ffplug_flowformer.registry import MODELS

BATCH_ORDERS = ("correct", "published")

CPU_CHUNK, GPU_CHUNK = 2**20, 2**23
"""Cells of cost maps that are embedded at a time by default; more only falls out of a CPU's cache (measured)."""


@dataclasses.dataclass
class CostMemory:
    """What the look-ups of one frame pair read.

    Attributes:
        volume: cost of every source pixel against every pixel of frame 2, N×(h·w)×(h·w), not scaled.
        key: keys of the latent memory, N×(h·w)×K×Q.
        value: values of the latent memory, as ``key``.
    """

    volume: Tensor
    key: Tensor
    value: Tensor


class MemoryQuery(nn.Module):
    """Cross-attention of one query token per source pixel to the pixel's cost memory.

    Args:
        samples: numbers in a local cost window.
        channels: Q of the query token.
        memory_channels: D of the memory's tokens.
        heads: attention heads.
    """

    def __init__(self, samples: int, channels: int, memory_channels: int, heads: int) -> None:
        super().__init__()
        self.channels = channels
        self.heads = heads
        self.embed = perceptron(samples, channels, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.q = Linear(channels, channels)
        self.k = Linear(memory_channels, channels)
        self.v = Linear(memory_channels, channels)
        self.proj = Linear(2 * channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.ffn = perceptron(channels, channels)

    def forward(self, window: Tensor, target: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Local costs N×L×samples, targets N×L×2 (x, y in cells), keys and values N×L×K×Q -> N×L×Q."""
        token = self.embed(window)
        query = self.q(self.norm1(token) + sine_embedding(target, self.channels).to(token.dtype))
        read = attend(query.flatten(0, 1)[:, None], key.flatten(0, 1), value.flatten(0, 1), self.heads)
        token = token + self.proj(torch.cat((read.view_as(token), token), dim=-1))
        return token + self.ffn(self.norm2(token))


@MODELS.register_module()
class LatentCostMemory(Cost):
    """Cost volume, encoded to K latent tokens per source pixel and queried in the loop (FlowFormer, section 3).

    Args:
        feature_channels: channels of the matching features; a linear map of them is correlated.
        context_channels: channels of the context that guides attention across source pixels, or 0 to go without it.
        vertical_channels: what the context is projected to in each such attention (0 without a context).
        tokens: K.
        channels: D of a latent token.
        depth: layers of the alternate-group transformer.
        patch_channels: features of a patch of a cost map, before its position is added.
        patch_size: side of such a patch in cells, 8 or 4.
        query_channels: Q of the query token.
        radius: the local window has (2·radius + 1)² samples.
        heads: heads of every attention.
        chunk: source pixels whose cost maps are embedded at a time; it bounds the peak of memory and changes no number.
            None takes what suits the device: a CPU's cache, or enough to fill a GPU.
        checkpointing: recompute the encoder's activations in the backward pass in place of keeping them.
        batch_order: ``'correct'`` gives every sample its own context. ``'published'`` repeats what the public code
            does in batches of several samples, where token k of sample n sees the context of sample (n·K + k) mod N.

    Raises:
        ConfigError: a size that does not divide as it must, or an unknown ``batch_order``.
    """

    def __init__(
        self,
        feature_channels: int = 256,
        context_channels: int = 256,
        vertical_channels: int = 64,
        tokens: int = 8,
        channels: int = 128,
        depth: int = 3,
        patch_channels: int = 64,
        patch_size: int = 8,
        query_channels: int = 64,
        radius: int = 4,
        heads: int = 8,
        chunk: int | None = None,
        checkpointing: bool = False,
        batch_order: str = "correct",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        fits_heads = f"a multiple of 4 and of heads={heads}"
        guided = f"0 exactly where context_channels is 0, which is {context_channels}"
        for name, value, holds, expected in (
            ("channels", channels, channels % math.lcm(4, heads) == 0, fits_heads),
            ("query_channels", query_channels, query_channels % math.lcm(4, heads) == 0, fits_heads),
            ("patch_channels", patch_channels, patch_channels % 4 == 0, "a multiple of 4"),
            ("vertical_channels", vertical_channels, vertical_channels % 4 == 0, "a multiple of 4"),
            ("vertical_channels", vertical_channels, bool(vertical_channels) == bool(context_channels), guided),
            ("patch_size", patch_size, patch_size in (4, 8), "4 or 8"),
            ("tokens", tokens, tokens >= 1, "at least 1"),
            ("chunk", chunk, chunk is None or chunk >= 1, "at least 1, or None"),
            ("batch_order", batch_order, batch_order in BATCH_ORDERS, " or ".join(map(repr, BATCH_ORDERS))),
        ):
            if not holds:
                raise ConfigError(f"LatentCostMemory: {name}={value!r}: expected {expected}")
        self.feature_channels = feature_channels
        self.context_channels = context_channels or None
        self.tokens = tokens
        self.radius = radius
        self.chunk = chunk
        self.checkpointing = checkpointing
        self.batch_order = batch_order
        samples = (2 * radius + 1) ** 2
        self.out_channels = query_channels + samples

        self.channel_convertor = Linear(feature_channels, feature_channels, bias=False)
        self.patch_embed = CostPatchEmbedding(patch_channels, patch_size)
        self.summary = LatentSummary(tokens, channels, 2 * patch_channels, heads)
        self.layers = nn.ModuleList(
            AlternateGroupLayer(channels, context_channels, vertical_channels, heads) for _ in range(depth)
        )
        self.query = MemoryQuery(samples, query_channels, channels, heads)

    def forward(self, encoded: Encoded) -> CostMemory:
        """Correlate the features and encode the volume; see :class:`~ffplug.models.parts.Cost`."""
        volume = self.correlate(encoded.feature1, encoded.feature2)
        memory = self.encode(volume, encoded.context).flatten(1, 2)
        return CostMemory(volume, self.query.k(memory), self.query.v(memory))

    def correlate(self, feature1: Tensor, feature2: Tensor) -> Tensor:
        """Matching features N×C×h×w of both frames -> volume N×(h·w)×(h·w) in float32, without a scale."""
        first, second = (self.channel_convertor(f.flatten(2).transpose(1, 2)) for f in (feature1, feature2))
        with torch.autocast(feature1.device.type, enabled=False):
            return batched_row_product(first.float(), second.float())

    def encode(self, volume: Tensor, context: Tensor) -> Tensor:
        """Volume N×(h·w)×(h·w) and context N×C×h×w -> cost memory N×h×w×K×D."""
        size = context.shape[-2:]
        maps = volume.view(-1, 1, *size)
        chunk = self.chunk or max(1, (CPU_CHUNK if maps.is_cpu else GPU_CHUNK) // (size[0] * size[1]))
        latent = torch.cat([self._run(self._summarise, part) for part in maps.split(chunk)])
        first = tokens = latent.view(volume.shape[0], *size, *latent.shape[1:])
        guide = None if self.context_channels is None else self._per_token(context)
        for layer in self.layers:
            tokens = self._run(layer, tokens, guide)
        return first + tokens

    def lookup(self, cost: CostMemory, flow: Tensor) -> Tensor:
        """Query token and local costs: see :class:`~ffplug.models.parts.Cost`."""
        size = flow.shape[-2:]
        window = corr_lookup(cost.volume, (tuple(size),), flow.detach(), self.radius).permute(0, 2, 3, 1).flatten(1, 2)
        dtype = at_least_float32(flow.dtype)
        x, y = (torch.arange(length, device=flow.device, dtype=dtype) for length in reversed(size))
        cells = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)
        target = flow.detach().flatten(2).transpose(1, 2) + cells
        token = self.query(window, target, cost.key, cost.value)
        return torch.cat((token, window), dim=-1).transpose(1, 2).unflatten(2, size)

    def _summarise(self, maps: Tensor) -> Tensor:
        return self.summary(self.patch_embed(maps))

    def _run(self, function: Callable[..., Tensor], *args: Tensor | None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *args, use_reentrant=False)
        return function(*args)

    def _per_token(self, context: Tensor) -> Tensor:
        """Context N×C×h×w -> N×h×w×1×C, or N×h×w×K×C where tokens of one sample see several contexts."""
        if self.batch_order == "correct":
            return context.permute(0, 2, 3, 1).unsqueeze(3)
        count = context.shape[0]
        seen = torch.arange(count * self.tokens, device=context.device) % count
        return context[seen].unflatten(0, (count, self.tokens)).permute(0, 3, 4, 1, 2)
