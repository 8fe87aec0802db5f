"""HTNet, a hierarchical transformer over flow patches of eyes and mouth (Wang et al., Neurocomputing 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ffplug.errors import ConfigError
from ffplug_face.registry import MODELS


class _ChannelNorm(nn.Module):
    """Layer normalisation over the channels of a map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, width, 1, 1))
        self.b = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, unbiased=False, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * self.g + self.b


class _Residual(nn.Module):
    """x + fn(norm(x))."""

    def __init__(self, width: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = _ChannelNorm(width)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(self.norm(x))


class _Attention(nn.Module):
    """Self-attention among the positions of a block."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        inner = width // heads * heads
        self.to_qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(inner, width, 1), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        query, key, value = self.to_qkv(x).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(-1, -2).unbind(1)
        found = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(found.transpose(-1, -2).flatten(1, 2).unflatten(2, (height, width)))


class _FeedForward(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv2d(4 * width, width, 1),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _Transformer(nn.Module):
    """A learned number for each position, then ``depth`` blocks."""

    def __init__(self, width: int, side: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.side = side
        self.pos_emb = nn.Parameter(torch.randn(side * side))
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [_Residual(width, _Attention(width, heads, dropout)), _Residual(width, _FeedForward(width, dropout))]
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_emb.view(1, 1, self.side, self.side)
        for attend, think in self.layers:
            x = think(attend(x))
        return x


class _Patches(nn.Module):
    """Cut a picture into patches, each of which becomes the channels of one position."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward(self, image: Tensor) -> Tensor:
        rows, columns = (side // self.patch for side in image.shape[-2:])
        split = image.unflatten(3, (columns, self.patch)).unflatten(2, (rows, self.patch))
        return split.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)


@MODELS.register_module()
class HTNet(nn.Module):
    """Transformers within blocks of a map that merge from level to level, down to one block.

    The published geometry (28 pixels, patches of 7, three levels, the defaults here) leaves one position in each block,
    so its attention attends to nothing but the position itself, and it has 139.6 million parameters.
    ``dict(image_size=56, dim=96, depths=(1, 1, 2))`` on tiles of 28 pixels has four positions in each block.

    Args:
        classes: number of classes.
        image_size: side of the pictures in pixels.
        patch_size: side of a patch in pixels.
        dim: channels at the first level; they double at each further one.
        heads: attention heads at the first level; they double as well.
        depths: transformer blocks of each level; their number is that of the levels.
        dropout: share of values dropped within the blocks.

    Raises:
        ConfigError: the sizes do not divide.

    Example:
        dict(type="ffplug_face.HTNet", image_size=56, dim=12, depths=(1, 1, 2))
    """

    def __init__(
        self,
        classes: int = 3,
        image_size: int = 28,
        patch_size: int = 7,
        dim: int = 256,
        heads: int = 3,
        depths: Sequence[int] = (2, 2, 10),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        blocks = 2 ** (len(depths) - 1)
        if image_size % (patch_size * blocks):
            raise ConfigError(
                f"HTNet: image_size={image_size} must be a multiple of patch_size x 2^(levels - 1) = "
                f"{patch_size} x {blocks}"
            )
        self.input_size = image_size
        side = image_size // (patch_size * blocks)
        self.to_patch_embedding = nn.Sequential(_Patches(patch_size), nn.Conv2d(3 * patch_size**2, dim, 1))
        self.layers = nn.ModuleList()
        for level, depth in enumerate(depths):
            width = dim * 2**level
            merge: nn.Module = nn.Identity()
            if level < len(depths) - 1:
                merge = nn.Sequential(
                    nn.Conv2d(width, 2 * width, 3, padding=1), _ChannelNorm(2 * width), nn.MaxPool2d(3, 2, padding=1)
                )
            stage = _Transformer(width, side, depth, heads * 2**level, dropout)
            self.layers.append(nn.ModuleList([stage, merge]))
        last = dim * blocks
        self.mlp_head = nn.Sequential(_ChannelNorm(last), _Mean(), nn.Linear(last, classes))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of N×3×image_size×image_size pictures, N×classes."""
        x = self.to_patch_embedding(image)
        for level, (transform, merge) in enumerate(self.layers):
            blocks = 2 ** (len(self.layers) - 1 - level)
            n, side = len(x), x.shape[-1] // blocks
            # N×C×(b·s)×(b·s) -> (N·b·b)×C×s×s and back.
            x = x.unflatten(3, (blocks, side)).unflatten(2, (blocks, side)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
            x = transform(x).unflatten(0, (n, blocks, blocks)).permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
            x = merge(x)
        return self.mlp_head(x)


class _Mean(nn.Module):
    """Mean over the positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))
