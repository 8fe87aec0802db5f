"""MobileSAM's TinyViT image encoder at any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug_samflow.models.frozen import FrozenEncoder, make_neck, pad_to_windows
from ffplug_samflow.registry import MODELS


class ConvBN(nn.Module):
    """A convolution without bias, and batch norm; the names are those of the public weights."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H/stride×W/stride."""
        return self.bn(self.c(x))


class MBConv(nn.Module):
    """Inverted bottleneck with a shortcut."""

    def __init__(self, channels: int, expand: int = 4) -> None:
        super().__init__()
        inner = channels * expand
        self.conv1 = ConvBN(channels, inner)
        self.conv2 = ConvBN(inner, inner, 3, groups=inner)
        self.conv3 = ConvBN(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W -> N×C×H×W."""
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Merge(nn.Module):
    """Between two stages: change the channels, and halve the grid with ``stride`` 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBN(inputs, outputs)
        self.conv2 = ConvBN(outputs, outputs, 3, stride, groups=outputs)
        self.conv3 = ConvBN(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×outputs×H/stride×W/stride."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class WindowAttention(nn.Module):
    """Attention within a window, its bias a table over absolute offsets, gathered in every call (never stale)."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        cells = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        offset = (cells[:, :, None] - cells[:, None, :]).abs()
        self.register_buffer("offset", offset[0] * window + offset[1], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Windows of tokens N×L×C -> N×L×C."""
        count, length, channels = x.shape
        qkv = self.qkv(self.norm(x)).view(count, length, self.heads, 3, channels // self.heads)
        query, key, value = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        bias = self.attention_biases[:, self.offset].to(query.dtype)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(out.transpose(1, 2).reshape(count, length, channels))


class Perceptron(nn.Module):
    """Layer norm and two linear layers."""

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, ratio * channels)
        self.fc2 = nn.Linear(ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """...×C -> ...×C."""
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class TinyViTBlock(nn.Module):
    """Window attention, a depthwise convolution, a perceptron."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(channels, heads, window)
        self.local_conv = ConvBN(channels, channels, 3, groups=channels)
        self.mlp = Perceptron(channels)

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W -> N×C×H×W."""
        tokens = x.permute(0, 2, 3, 1)
        tokens = tokens + self._attend(tokens)
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        # The norm lies inside the attention, so padding takes part in it with the norm's bias, as published.
        count, height, width, channels = x.shape
        size = self.window
        padded, (rows, columns) = pad_to_windows(x, size)
        grid = padded.view(count, rows // size, size, columns // size, size, channels).transpose(2, 3)
        out = self.attn(grid.reshape(-1, size * size, channels)).view(grid.shape).transpose(2, 3)
        return out.reshape(count, rows, columns, channels)[:, :height, :width]


class Stage(nn.Module):
    """Blocks, then the way to the next stage."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample if downsample is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W -> N×C'×H'×W'."""
        return self.downsample(self.blocks(x))


class Stem(nn.Module):
    """Two convolutions of stride 2."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvBN(3, outputs // 2, 3, 2), nn.GELU(), ConvBN(outputs // 2, outputs, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        """N×3×H×W -> N×outputs×H/4×W/4."""
        return self.seq(x)


@MODELS.register_module()
class MobileSAMTinyViT(FrozenEncoder):
    """MobileSAM's image encoder (Zhang et al., 2023), at any size whose sides are multiples of 16.

    Args:
        embed_dims: channels of the four stages.
        depths: blocks of the stages; the first has convolutional ones.
        heads: attention heads of the stages after the first.
        windows: sides of their attention windows, in cells of the stage.
        **kwargs: those of :class:`FrozenEncoder`.
    """

    def __init__(
        self,
        embed_dims: Sequence[int] = (64, 128, 160, 320),
        depths: Sequence[int] = (2, 2, 6, 2),
        heads: Sequence[int] = (4, 5, 10),
        windows: Sequence[int] = (7, 14, 7),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.patch_embed = Stem(embed_dims[0])
        strides = (2, 2, 1)  # the last two stages share 1/16
        layers = [Stage([MBConv(embed_dims[0]) for _ in range(depths[0])], Merge(*embed_dims[:2], strides[0]))]
        for index in range(1, 4):
            blocks = [
                TinyViTBlock(embed_dims[index], heads[index - 1], windows[index - 1]) for _ in range(depths[index])
            ]
            merge = Merge(embed_dims[index], embed_dims[index + 1], strides[index]) if index < 3 else None
            layers.append(Stage(blocks, merge))
        self.layers = nn.Sequential(*layers)
        self.neck = make_neck(embed_dims[-1], self.out_channels)
        self.freeze()

    def encode(self, image: Tensor) -> Tensor:
        """Normalised image N×3×H×W, sides multiples of 16 -> N×256×H/16×W/16."""
        return self.neck(self.layers(self.patch_embed(image)))

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Drop the classifier that the public weights hold and nobody reads."""
        return {key: value for key, value in state.items() if not key.startswith(("norm_head.", "head."))}
