"""The denoisers of representation diffusion: a U-Net of diffusers on a grid of 1×1, and the perceptron that it is."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DModel, UNet2DOutput
from torch import Tensor, nn

from ffplug.errors import ConfigError
from ffplug_latentface.registry import MODELS

LAYOUTS = ("mlp", "unet")


def _groups(width: int) -> int:
    """32 groups as diffusers has, fewer in narrow networks: a group of one channel would be always 0."""
    return 32 if width >= 128 else max(1, width // 4)


class _Block(nn.Module):
    """A residual block; ``inside`` and ``outside`` channels."""

    def __init__(self, inside: int, outside: int, time: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.first = nn.GroupNorm(groups, inside), nn.Linear(inside, outside)
        self.time = nn.Linear(time, outside)
        self.norm2, self.second = nn.GroupNorm(groups, outside), nn.Linear(outside, outside)
        self.shortcut = nn.Linear(inside, outside) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        hidden = self.first(nn.functional.silu(self.norm1(x))) + self.time(nn.functional.silu(time))
        return self.shortcut(x) + self.second(nn.functional.silu(self.norm2(hidden)))


@MODELS.register_module()
class LatentDenoiser(ModelMixin, ConfigMixin):
    """What LatentFace's U-Net computes on a grid of 1×1, where of each 3×3 kernel the middle alone acts.

    Attention over a single place is a linear layer, so this has no queries and keys. It has the interface of diffusers'
    models: ``denoiser(sample, timestep).sample``, ``save_pretrained``, ``from_pretrained``.

    Args:
        code: length of the code.
        width: channels, a multiple of 4; 128 and 1024 were released.

    Example:
        dict(type="ffplug_latentface.LatentDenoiser", code=16, width=16)
    """

    @register_to_config
    def __init__(self, *, code: int = 256, width: int = 128) -> None:
        super().__init__()
        if width < 8 or width % 8:
            raise ConfigError(f"width={width}: expected a multiple of 8")
        groups, time = _groups(width), 4 * width
        self.first = nn.Linear(2 * code, width)
        self.time = nn.ModuleList([nn.Linear(width, time), nn.Linear(time, time)])
        self.down = nn.ModuleList(_Block(width, width, time, groups) for _ in range(2))
        self.middle = nn.ModuleList(_Block(width, width, time, groups) for _ in range(2))
        self.attention_norm = nn.GroupNorm(groups, width)
        self.attention = nn.ModuleList(nn.Linear(width, width) for _ in range(2))  # value, output
        self.up = nn.ModuleList(_Block(2 * width, width, time, groups) for _ in range(3))
        self.last_norm = nn.GroupNorm(groups, width)
        self.last = nn.Linear(width, code)

    def forward(self, sample: Tensor, timestep: Tensor | float, return_dict: bool = True) -> UNet2DOutput | tuple:
        """The clean code.

        Args:
            sample: N×2C×1×1, the noisy code and the observed one.
            timestep: one for all, or N.
            return_dict: whether to give an object with ``sample``, or a tuple.

        Returns:
            N×C×1×1.
        """
        x = self.first(sample[:, :, 0, 0])
        time = self._time(timestep, x)
        skips = [x]
        for block in self.down:
            x = block(x, time)
            skips.append(x)
        x = self.middle[0](x, time)
        x = x + self.attention[1](self.attention[0](self.attention_norm(x)))
        x = self.middle[1](x, time)
        for block in self.up:
            x = block(torch.cat((x, skips.pop()), 1), time)
        x = self.last(nn.functional.silu(self.last_norm(x)))[:, :, None, None]
        return UNet2DOutput(sample=x) if return_dict else (x,)

    def _time(self, timestep: Tensor | float, x: Tensor) -> Tensor:
        half = self.config.width // 2
        steps = torch.as_tensor(timestep, device=x.device).float().expand(len(x))
        rates = torch.arange(half, device=x.device).mul(-torch.log(torch.tensor(10000.0)).item() / half).exp()
        angles = steps[:, None] * rates
        time = torch.cat((angles.cos(), angles.sin()), 1).to(x.dtype)
        return self.time[1](nn.functional.silu(self.time[0](time)))


def build_denoiser(code: int = 256, width: int = 128, layout: str = "mlp") -> LatentDenoiser | UNet2DModel:
    """A new denoiser: a :class:`LatentDenoiser` (``mlp``), or diffusers' own model (``unet``).

    Raises:
        ConfigError: there is no such layout.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout={layout!r}: expected one of {', '.join(LAYOUTS)}")
    if layout == "mlp":
        return LatentDenoiser(code=code, width=width)
    return UNet2DModel(
        sample_size=1,
        in_channels=2 * code,
        out_channels=code,
        layers_per_block=2,
        block_out_channels=(width,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=_groups(width),
    )


_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names in diffusers before 0.15, and now."""

_RENAMED = (
    (r"conv_in", "first"),
    (r"time_embedding\.linear_1", "time.0"),
    (r"time_embedding\.linear_2", "time.1"),
    (r"down_blocks\.0\.resnets\.(\d)", r"down.\1"),
    (r"mid_block\.resnets\.(\d)", r"middle.\1"),
    (r"mid_block\.attentions\.0\.group_norm", "attention_norm"),
    (r"mid_block\.attentions\.0\.to_v", "attention.0"),
    (r"mid_block\.attentions\.0\.to_out\.0", "attention.1"),
    (r"up_blocks\.0\.resnets\.(\d)", r"up.\1"),
    (r"conv_norm_out", "last_norm"),
    (r"conv_out", "last"),
    (r"\.conv1\.", ".first."),
    (r"\.conv2\.", ".second."),
    (r"\.time_emb_proj\.", ".time."),
    (r"\.conv_shortcut\.", ".shortcut."),
)


def current_unet_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A U-Net's state with the names that diffusers' attention has today."""
    renamed = {}
    for key, value in state.items():
        head, _, last = key.rpartition(".")
        start, _, name = head.rpartition(".")
        renamed[f"{start}.{_ATTENTION[name]}.{last}" if name in _ATTENTION else key] = value
    return renamed


def unet_to_mlp(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a :class:`LatentDenoiser` that computes what a U-Net does, with old or present names.

    Of each kernel the middle is taken; queries and keys are left out.
    """
    converted = {}
    for key, value in current_unet_keys(state).items():
        if ".to_q." in key or ".to_k." in key:
            continue
        for pattern, name in _RENAMED:
            key = re.sub(pattern, name, key)
        converted[key] = (
            value[:, :, value.shape[2] // 2, value.shape[3] // 2].contiguous() if value.dim() == 4 else value
        )
    return converted
