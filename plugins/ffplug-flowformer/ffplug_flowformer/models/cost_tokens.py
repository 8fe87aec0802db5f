"""From cost maps to a few latent tokens for each source pixel (FlowFormer, section 3.1)."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.models.layers import Linear
from ffplug_flowformer.models.attention import attend, grid_embedding, padding_to, perceptron


class CostPatchEmbedding(nn.Module):
    """Patches of a cost map to tokens that know where they lie.

    Args:
        channels: C of the patch features; tokens have 2C numbers.
        patch_size: side of a patch in cells, 8 or 4.
    """

    def __init__(self, channels: int, patch_size: int) -> None:
        super().__init__()
        self.channels = channels
        self.patch_size = patch_size
        widths = [1, channels // 4, channels // 2, channels] if patch_size == 8 else [1, channels // 4, channels]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 6, stride=2, padding=2) for before, after in itertools.pairwise(widths)
        )
        self.mix = Linear(2 * channels, 2 * channels)
        self.project = Linear(2 * channels, 2 * channels)
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, maps: Tensor) -> Tensor:
        """M×1×h×w -> M×T×2C, T = ⌈h/patch⌉·⌈w/patch⌉ patches row by row."""
        rows, columns = padding_to(maps.shape[2:], self.patch_size)
        features = F.pad(maps, (0, columns, 0, rows))
        for index, convolution in enumerate(self.convolutions):
            features = convolution(F.relu(features) if index else features)
        position = grid_embedding(
            features.shape[2:], self.channels, maps, step=self.patch_size, offset=self.patch_size / 2
        )
        # `mix` acts on patch and position side by side; the position's share is the same for every map.
        patch_weight, position_weight = self.mix.weight.split(self.channels, dim=1)
        tokens = F.linear(features.flatten(2).transpose(1, 2), patch_weight)
        tokens = tokens + F.linear(position, position_weight, self.mix.bias)
        return self.norm(self.project(F.relu(tokens)))


class LatentSummary(nn.Module):
    """K learned tokens that read a cost map's tokens by cross-attention, the same queries for every map.

    Args:
        tokens: K.
        channels: D of the latent tokens.
        input_channels: size of a cost map's tokens.
        heads: attention heads.
    """

    def __init__(self, tokens: int, channels: int, input_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.latent = nn.Parameter(torch.randn(tokens, channels))
        self.norm1 = nn.LayerNorm(channels)
        self.q = Linear(channels, channels)
        self.k = Linear(input_channels, channels)
        self.v = Linear(input_channels, channels)
        self.proj = Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.ffn = perceptron(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """M×T×input_channels -> M×K×D."""
        query = self.q(self.norm1(self.latent)).expand(len(tokens), -1, -1)
        latent = self.latent + self.proj(attend(query, self.k(tokens), self.v(tokens), self.heads))
        return latent + self.ffn(self.norm2(latent))
