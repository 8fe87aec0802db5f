"""The efficient reshading module: what is missing is taken from valid pixels of like geometry and material."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.ops import local_window_attention
from ffplug_stss.models.layers import stack
from ffplug_stss.registry import MODELS


@MODELS.register_module()
class EfficientReshading(nn.Module):
    """Local attention with keys from the frame's buffers (ERM of STSS, AAAI 2024).

    ``A(p) = Σ_q w(p, q) v(q) / max(Σ_q w(p, q), 1e-6)`` over a window, with ``w(p, q) = relu(m(q) · <k(q), k(p)>)``,
    values ``v = m · latent(features, buffers)`` and keys ``k`` of unit length from the buffers alone. A pixel in a hole
    asks its valid neighbours; a window without a valid pixel gives zero.

    Args:
        inputs: channels of the features.
        buffers: channels of the buffers.
        channels: channels of values and result.
        key_channels: channels of the keys.
        radius: of the window.

    Example:
        dict(type="ffplug_stss.EfficientReshading")
    """

    def __init__(
        self, inputs: int = 32, buffers: int = 9, channels: int = 64, key_channels: int = 32, radius: int = 2
    ) -> None:
        super().__init__()
        self.channels = channels
        self.radius = radius
        self.latent = stack(inputs + buffers, channels, channels, channels, last="none")
        self.key = stack(buffers, key_channels, key_channels, key_channels, last="none")

    def forward(self, features: Tensor, buffers: Tensor, mask: Tensor) -> Tensor:
        """Features N×C×h×w, buffers N×B×h×w and mask N×1×h×w in 0..1 -> N×channels×h×w."""
        value = mask * self.latent(torch.cat([features, buffers], dim=1))
        # In half precision the least length 1e-12 would be zero.
        key = F.normalize(self.key(buffers).float(), dim=1, eps=1e-12).to(value.dtype)
        return local_window_attention(key, mask * key, value, self.radius, normalization="relu", eps=1e-6)
