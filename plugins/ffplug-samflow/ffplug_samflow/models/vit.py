"""SAM's ViT image encoder at any size up to 1024 pixels, on mmpretrain's ``ViTSAM``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.errors import ConfigError
from ffplug_samflow.models.frozen import FrozenEncoder
from ffplug_samflow.registry import MODELS

CROPS = ("center", "first")
PATCH = 16

_RULES = (
    (r"blocks\.(\d+)\.norm([12])\.", r"layers.\1.ln\2."),
    (r"blocks\.(\d+)\.mlp\.lin1\.", r"layers.\1.ffn.layers.0.0."),
    (r"blocks\.(\d+)\.mlp\.lin2\.", r"layers.\1.ffn.layers.1."),
    (r"blocks\.(\d+)\.", r"layers.\1."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"neck\.", "channel_reduction."),
)


def rename_vit(key: str) -> str:
    """The key of mmpretrain's ``ViTSAM`` for one of SAM's image encoder."""
    for pattern, replacement in _RULES:
        renamed, count = re.subn(f"^{pattern}", replacement, key)
        if count:
            return renamed
    return key


@MODELS.register_module()
class SAMViTEncoder(FrozenEncoder):
    """SAM's image encoder (Kirillov et al., ICCV 2023) with SAMFlow's handling of sizes.

    Its tables of positions are made for 1024×1024; a smaller frame takes the top left of the absolute ones and the
    offsets that occur of the relative ones, where others interpolate.

    Args:
        arch: ``'base'``, ``'large'``, ``'huge'``, or a dict as mmpretrain's ``ViTSAM`` takes it.
        rel_pos_crop: ``'center'`` takes the right offsets. ``'first'`` takes the first rows, which are those of other
            offsets, as the released Sintel weights of SAMFlow-H were trained.
        image_size: side that the tables are made for, in pixels.
        **kwargs: those of :class:`FrozenEncoder`.

    Raises:
        ConfigError: mmpretrain is not installed, or an unknown ``rel_pos_crop``.
    """

    def __init__(
        self, arch: str | dict = "base", rel_pos_crop: str = "center", image_size: int = 1024, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if rel_pos_crop not in CROPS:
            raise ConfigError(f"rel_pos_crop={rel_pos_crop!r}: expected one of {', '.join(CROPS)}")
        try:
            with warnings.catch_warnings():
                # The plain build of mmcv warns of a compiled op that nothing here uses.
                warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")
                from mmpretrain.models.backbones import ViTSAM
        except ImportError as error:
            raise ConfigError(
                f"SAM's ViT encoders need mmpretrain ({error}): pip install 'ffplug-samflow[vit]', "
                "or take samflow_tiny, which needs nothing more"
            ) from error
        self.rel_pos_crop = rel_pos_crop
        self.max_size = image_size
        self.backbone = ViTSAM(arch=arch, img_size=image_size, out_channels=self.out_channels)
        self.freeze()

    def encode(self, image: Tensor) -> Tensor:
        """Normalised image N×3×H×W, sides multiples of 16 -> N×256×H/16×W/16."""
        backbone = self.backbone
        tokens, (height, width) = backbone.patch_embed(image)
        x = tokens.unflatten(1, (height, width)) + backbone.pos_embed[:, :height, :width]
        for layer in backbone.layers:
            if layer.window_size > 0:
                x = layer(x)
            else:
                x = x + self._attend(layer.attn, layer.ln1(x))
                x = layer.ffn(layer.ln2(x), identity=x)
        return backbone.channel_reduction(x.permute(0, 3, 1, 2))

    def _attend(self, attention: nn.Module, x: Tensor) -> Tensor:
        """Global attention over N×H×W×C with the relative positions that occur."""
        count, height, width, channels = x.shape
        heads = attention.num_heads
        qkv = attention.qkv(x).reshape(count, height * width, 3, heads, channels // heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        grid = query.reshape(count * heads, height, width, -1)
        rows = torch.einsum("nhwc,hkc->nhwk", grid, self._offsets(attention.rel_pos_h, height).to(grid.dtype))
        columns = torch.einsum("nhwc,wkc->nhwk", grid, self._offsets(attention.rel_pos_w, width).to(grid.dtype))
        bias = (rows[..., :, None] + columns[..., None, :]).reshape(count, heads, height * width, height * width)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return attention.proj(out.transpose(1, 2).reshape(x.shape))

    def _offsets(self, table: Tensor, length: int) -> Tensor:
        """Rows of a table of 2·n - 1 offsets for every query and key of a side: length × length × C."""
        start = (table.shape[0] + 1) // 2 - length if self.rel_pos_crop == "center" else 0
        steps = torch.arange(length, device=table.device)
        return table[steps[:, None] - steps[None, :] + length - 1 + start]

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """SAM's keys to mmpretrain's."""
        return {f"backbone.{rename_vit(key)}": value for key, value in state.items()}
