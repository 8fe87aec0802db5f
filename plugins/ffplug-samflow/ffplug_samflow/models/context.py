"""SAMFlow's context: FlowFormer's context features fused with those of a frozen Segment-Anything encoder."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.errors import ConfigError
from ffplug.models.encoders import ResidualBlock
from ffplug.models.parts import FrameEncoder
from ffplug_samflow.registry import MODELS

FUSIONS = ("add", "weighted")


class ProjectedAttention(nn.Module):
    """Multi-head attention whose heads share ``inner`` channels."""

    def __init__(self, channels: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(channels, inner)
        self.k_proj = nn.Linear(channels, inner)
        self.v_proj = nn.Linear(channels, inner)
        self.out_proj = nn.Linear(inner, channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """N×Q×C, N×K×C, N×K×C -> N×Q×C."""
        query, key, value = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        out = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class TwoWayLayer(nn.Module):
    """Tokens look at themselves and at the image, then the image looks at the tokens (SAM's mask decoder)."""

    def __init__(self, channels: int, heads: int, width: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = ProjectedAttention(channels, channels, heads)
        self.norm1 = nn.LayerNorm(channels)
        self.cross_attn_token_to_image = ProjectedAttention(channels, channels // 2, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, channels))
        self.norm3 = nn.LayerNorm(channels)
        self.cross_attn_image_to_token = ProjectedAttention(channels, channels // 2, heads)
        self.norm4 = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, image: Tensor, start: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens N×T×C and image N×L×C, with their codes -> both, updated."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)  # the first layer has neither code nor residual
        else:
            coded = tokens + start
            tokens = tokens + self.self_attn(coded, coded, tokens)
        tokens = self.norm1(tokens)
        coded_image = image + position
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + start, coded_image, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(coded_image, tokens + start, tokens))
        return tokens, image


class ContextAdaptionModule(nn.Module):
    """Two-way transformer between the fused context and a learned task embedding (SAMFlow, section 3.3).

    SAM's decoder ends with one more attention of the tokens, which nothing reads here; it is not built.

    Args:
        channels: of the context.
        depth: number of layers.
        heads: attention heads.
        width: channels inside the perceptrons.
        tokens: learned output tokens beside the task-specific embedding.
    """

    def __init__(self, channels: int = 256, depth: int = 2, heads: int = 8, width: int = 2048, tokens: int = 2) -> None:
        super().__init__()
        self.output_tokens = nn.Parameter(torch.randn(tokens, channels))
        self.task_embedding = nn.Parameter(torch.randn(1, channels))
        self.position = nn.Parameter(torch.randn(2, channels // 2))
        self.layers = nn.ModuleList(TwoWayLayer(channels, heads, width, index == 0) for index in range(depth))

    def _codes(self, height: int, width: int) -> Tensor:
        x = (torch.arange(width, device=self.position.device) + 0.5) / width * 2 - 1
        y = (torch.arange(height, device=self.position.device) + 0.5) / height * 2 - 1
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).view(-1, 2)
        phase = 2 * math.pi * (grid.to(self.position.dtype) @ self.position)
        return torch.cat((phase.sin(), phase.cos()), dim=-1)

    def forward(self, context: Tensor) -> Tensor:
        """N×C×h×w -> N×C×h×w."""
        height, width = context.shape[-2:]
        image = context.flatten(2).transpose(1, 2)
        start = torch.cat((self.output_tokens, self.task_embedding)).expand(context.shape[0], -1, -1)
        position = self._codes(height, width)
        tokens = start
        for layer in self.layers:
            tokens, image = layer(tokens, image, start, position)
        return image.transpose(1, 2).unflatten(2, (height, width))


@MODELS.register_module()
class SAMContextEncoder(FrameEncoder):
    """FlowFormer's context encoder, SAM's encoder, and what fuses and adapts them (SAMFlow, section 3).

    A state dict of FlowFormer loads too (not strictly): its context encoder becomes ``twins``.

    Args:
        twins: config of the trainable context encoder, at 1/8 of the resolution.
        sam: config of the frozen encoder, N×3×H×W -> N×256×H/16×W/16.
        sam_channels: what the frozen features are reduced to before the fusion.
        heads: attention heads of the Context Adaption Module.
        width: channels inside its perceptrons.
        fusion: ``'add'`` sums fused and adapted context; ``'weighted'`` has a learned weight for each, which start at
            1 and 0, so that training starts from the fusion alone.
        init_cfg: see MMEngine's ``BaseModule``.

    Raises:
        ConfigError: encoders that do not fit together, or an unknown ``fusion``.

    Example:
        dict(
            type="ffplug_samflow.SAMContextEncoder",
            twins=dict(type="ffplug_flowformer.TwinsFeatures"),
            sam=dict(type="ffplug_samflow.MobileSAMTinyViT"),
        )
    """

    def __init__(
        self,
        twins: dict,
        sam: dict,
        sam_channels: int = 96,
        heads: int = 8,
        width: int = 2048,
        fusion: str = "weighted",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if fusion not in FUSIONS:
            raise ConfigError(f"fusion={fusion!r}: expected one of {', '.join(FUSIONS)}")
        self.twins = MODELS.build(twins)
        self.sam = MODELS.build(sam)
        if self.sam.stride != 2 * self.twins.stride:
            raise ConfigError(
                f"sam at 1/{self.sam.stride} of the frame must have twice the stride of twins, 1/{self.twins.stride}"
            )
        channels = self.twins.out_channels
        self.out_channels = channels
        self.stride = self.twins.stride
        self.size_multiple = math.lcm(self.twins.size_multiple, self.sam.size_multiple)
        self.max_size = self.sam.max_size
        self.reduce = nn.Conv2d(self.sam.out_channels, sam_channels, 3, padding=1)
        self.fuse = nn.Sequential(
            ResidualBlock(channels + sam_channels, channels, "group"), ResidualBlock(channels, channels, "group")
        )
        self.adapt = ContextAdaptionModule(channels, heads=heads, width=width)
        self.weight = nn.Parameter(torch.tensor([1.0, 0.0])) if fusion == "weighted" else None

    def fused(self, image: Tensor) -> Tensor:
        """Frame N×3×H×W, RGB in 0..255 -> output of the Context Fusion Module, N×C×H/8×W/8."""
        frozen = F.interpolate(self.reduce(self.sam(image)), scale_factor=2, mode="bilinear", align_corners=False)
        return self.fuse(torch.cat((self.twins(image), frozen), dim=1))

    def forward(self, image: Tensor) -> Tensor:
        """N×3×H×W, RGB in 0..255, sides multiples of 16 -> N×C×H/8×W/8.

        Raises:
            ValueError: a size that the encoders can't take.
        """
        height, width = image.shape[-2:]
        if height % self.size_multiple or width % self.size_multiple:
            raise ValueError(f"frames of {height}×{width}: both sides must be multiples of {self.size_multiple}")
        if self.max_size is not None and max(height, width) > self.max_size:
            raise ValueError(
                f"frames of {height}×{width} are beyond the frozen encoder's {self.max_size} pixels: predict in tiles "
                "(TiledFlowInference), with model tile=dict(size=(432, 960))"
            )
        fused = self.fused(image)
        adapted = self.adapt(fused)
        if self.weight is None:
            return fused + adapted
        return self.weight[0] * fused + self.weight[1] * adapted

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # SAMFlow's training starts from a FlowFormer, whose context encoder is the Twins in here.
        for key in [key for key in state_dict if key.startswith(f"{prefix}backbone.")]:
            state_dict[f"{prefix}twins.{key.removeprefix(prefix)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
