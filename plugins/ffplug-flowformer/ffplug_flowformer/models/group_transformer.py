"""The alternate-group transformer over latent cost tokens (FlowFormer, section 3.2).

Tokens lie as N×h×w×K×D throughout: K tokens of D numbers for each source pixel of the h×w grid. One layer lets the
K tokens of a pixel see each other, then the k-th tokens of all pixels, near by (windows) and far away (a thinned grid).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.models.layers import Linear
from ffplug_flowformer.models.attention import attend, from_windows, grid_embedding, perceptron, to_windows


class PixelAttention(nn.Module):
    """Attention among the tokens of one source pixel, and a perceptron.

    Args:
        channels: D.
        heads: attention heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(channels)
        self.q = Linear(channels, channels)
        self.k = Linear(channels, channels)
        self.v = Linear(channels, channels)
        self.proj = Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.ffn = perceptron(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """N×h×w×K×D -> the same."""
        normal = self.norm1(tokens).flatten(0, 2)
        read = attend(self.q(normal), self.k(normal), self.v(normal), self.heads)
        tokens = tokens + self.proj(read).view_as(tokens)
        return tokens + self.ffn(self.norm2(tokens))


class GridAttention(nn.Module):
    """Base of both attentions across source pixels; queries and keys see the image's context, values do not.

    Args:
        channels: D.
        context_channels: channels of the context map, or 0 to go without it.
        vertical_channels: C, what the context is projected to.
        heads: attention heads.
    """

    def __init__(self, channels: int, context_channels: int, vertical_channels: int, heads: int) -> None:
        super().__init__()
        self.channels = channels
        self.heads = heads
        self.context_proj = Linear(context_channels, vertical_channels) if vertical_channels else None
        self.q = Linear(channels + vertical_channels, channels)
        self.proj = Linear(channels, channels)

    def share(self, layer: nn.Linear, position: Tensor, context: Tensor | None) -> Tensor:
        """What position and context add to a layer that acts on [tokens, context] + position; it is the same for all K.

        Args:
            layer: linear layer with D + C inputs.
            position: embedding, L×(D + C).
            context: ...×L×C, or None.

        Returns:
            L×out, or ...×L×out with a context.
        """
        added = F.linear(position, layer.weight, layer.bias)
        return added if context is None else added + F.linear(context, layer.weight[:, self.channels :])


class WindowAttention(GridAttention):
    """Attention within windows of the source grid.

    Positions count from the window's corner. Cells that pad the grid take part with zero features, as they did when
    the public weights were trained.

    Args:
        channels: D.
        context_channels: see :class:`GridAttention`.
        vertical_channels: C, see :class:`GridAttention`.
        heads: attention heads.
        window: side of a window in cells.
    """

    def __init__(
        self, channels: int, context_channels: int, vertical_channels: int, heads: int, window: int = 7
    ) -> None:
        super().__init__(channels, context_channels, vertical_channels, heads)
        self.window = window
        self.k = Linear(channels + vertical_channels, channels)
        self.v = Linear(channels, channels)

    def forward(self, tokens: Tensor, context: Tensor | None) -> Tensor:
        """Normalised tokens N×h×w×K×D and context N×h×w×(1 or K)×context_channels (or None) -> N×h×w×K×D."""
        size = tokens.shape[1:3]
        windows = to_windows(tokens, self.window)
        if self.context_proj is not None:
            context = to_windows(self.context_proj(context), self.window)
        position = grid_embedding((self.window, self.window), self.q.in_features, tokens)
        query, key = (
            F.linear(windows, layer.weight[:, : self.channels]) + self.share(layer, position, context)
            for layer in (self.q, self.k)
        )
        read = attend(query.flatten(0, 1), key.flatten(0, 1), self.v(windows).flatten(0, 1), self.heads)
        return from_windows(self.proj(read).view_as(windows), size, self.window)


class ThinnedAttention(GridAttention):
    """Attention from every source pixel to a grid of keys and values thinned by strided convolutions.

    Args:
        channels: D.
        context_channels: see :class:`GridAttention`; without a context, keys and values share one convolution.
        vertical_channels: C, see :class:`GridAttention`.
        heads: attention heads.
        stride: thinning in each direction.
    """

    def __init__(
        self, channels: int, context_channels: int, vertical_channels: int, heads: int, stride: int = 4
    ) -> None:
        super().__init__(channels, context_channels, vertical_channels, heads)
        self.stride = stride
        if vertical_channels:
            self.thin_key = nn.Conv2d(channels + vertical_channels, channels, stride, stride)
        self.thin_value = nn.Conv2d(channels, channels, stride, stride)
        self.norm = nn.LayerNorm(channels)
        self.k = Linear(channels, channels)
        self.v = Linear(channels, channels)

    def thin(self, tokens: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Keys and values before their linear layers, N×M×K×D each; M cells of the thinned grid.

        A convolution whose stride is its kernel is a linear layer on windows, which leaves the tokens in their layout.
        """
        patches = to_windows(tokens, self.stride).flatten(2)
        value_weight = self.thin_value.weight.permute(0, 2, 3, 1).flatten(1)
        if context is None:
            value = key = self.norm(F.linear(patches, value_weight, self.thin_value.bias))
        else:
            key_weight = self.thin_key.weight.permute(0, 2, 3, 1).flatten(1, 2)
            token_weight, context_weight = key_weight[..., : self.channels], key_weight[..., self.channels :]
            shared = F.linear(
                to_windows(context, self.stride).flatten(2), context_weight.flatten(1), self.thin_key.bias
            )
            key = self.norm(F.linear(patches, token_weight.flatten(1)) + shared)
            value = self.norm(F.linear(patches, value_weight, self.thin_value.bias))
        count = tokens.shape[0]
        return key.unflatten(0, (count, -1)), value.unflatten(0, (count, -1))

    def forward(self, tokens: Tensor, context: Tensor | None) -> Tensor:
        """Normalised tokens N×h×w×K×D and context N×h×w×(1 or K)×context_channels (or None) -> N×h×w×K×D."""
        height, width, count = tokens.shape[1:4]
        if self.context_proj is not None:
            context = self.context_proj(context)
        key, value = self.thin(tokens, context)
        thinned = (-(-height // self.stride), -(-width // self.stride))
        key = self.k(key + grid_embedding(thinned, self.channels, tokens, step=self.stride)[:, None])

        position = grid_embedding((height, width), self.q.in_features, tokens).view(height, width, 1, -1)
        query = F.linear(tokens, self.q.weight[:, : self.channels]) + self.share(self.q, position, context)
        # Tokens and heads side by side act as K·heads heads, so nothing is copied to bring K to the batch.
        read = attend(query.flatten(3).flatten(1, 2), key.flatten(2), self.v(value).flatten(2), count * self.heads)
        return self.proj(read.view_as(tokens))


class GridBlock(nn.Module):
    """Attention across source pixels and a perceptron, each on normalised tokens and added to them.

    Args:
        attention: how the pixels see each other.
        ratio: hidden width of the perceptron in units of D.
    """

    def __init__(self, attention: GridAttention, ratio: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(attention.channels)
        self.attn = attention
        self.norm2 = nn.LayerNorm(attention.channels)
        self.mlp = perceptron(attention.channels, ratio * attention.channels)

    def forward(self, tokens: Tensor, context: Tensor | None) -> Tensor:
        """Tokens N×h×w×K×D and context N×h×w×(1 or K)×context_channels (or None) -> N×h×w×K×D."""
        tokens = tokens + self.attn(self.norm1(tokens), context)
        return tokens + self.mlp(self.norm2(tokens))


class AlternateGroupLayer(nn.Module):
    """One layer: among the tokens of a pixel, then across pixels, near and far.

    Args:
        channels: D.
        context_channels: channels of the context map, or 0.
        vertical_channels: what the context is projected to, or 0.
        heads: attention heads.
    """

    def __init__(self, channels: int, context_channels: int, vertical_channels: int, heads: int) -> None:
        super().__init__()
        self.pixel = PixelAttention(channels, heads)
        self.local_block = GridBlock(WindowAttention(channels, context_channels, vertical_channels, heads))
        self.global_block = GridBlock(ThinnedAttention(channels, context_channels, vertical_channels, heads))

    def forward(self, tokens: Tensor, context: Tensor | None) -> Tensor:
        """Tokens N×h×w×K×D and context N×h×w×(1 or K)×context_channels (or None) -> N×h×w×K×D."""
        return self.global_block(self.local_block(self.pixel(tokens), context), context)
