"""The encoder as a backbone for others' models."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from ffplug.apis.checkpoints import read_state_dict
from ffplug.errors import CheckpointError, ConfigError
from ffplug_latentface.models.networks import CodeNet
from ffplug_latentface.registry import MODELS


@MODELS.register_module()
class LatentFaceEncoder(BaseModule):
    """LatentFace's encoders of albedo and depth as a backbone in the manner of mmpretrain's.

    A stage's map is that of both encoders, one after the other in the channels; stage k has 1/2^(k+1) of the
    resolution. Pictures are normalised here, so that the data preprocessor should give RGB in 0..255.

    Args:
        width: channels of the first layers.
        image_size: side of the pictures that the codes are for; the maps take any multiple of 16.
        code: length of each code.
        out_indices: which of the stages 0 to 3 to give.
        frozen: keep all weights.
        checkpoint: weights of a :class:`LatentFaceAutoencoder` (or of a model that has one), or None.
        init_cfg: see MMEngine.

    Raises:
        ConfigError: there is no such stage.
        CheckpointError: the weights are another network's.

    Example:
        dict(type="ffplug_latentface.LatentFaceEncoder", width=8, code=16)
    """

    def __init__(
        self,
        width: int = 64,
        image_size: int = 64,
        code: int = 256,
        out_indices: tuple[int, ...] = (3,),
        frozen: bool = False,
        checkpoint: str | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg)
        self.out_indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
        if not self.out_indices or not set(self.out_indices) <= set(range(4)):
            raise ConfigError(f"out_indices={out_indices}: expected some of 0, 1, 2, 3")
        self.albedo = CodeNet(3, width, code, image_size).encoder
        self.depth = CodeNet(1, width, code, image_size).encoder
        self.out_channels = tuple(2 * width * 2**stage for stage in self.out_indices)
        if checkpoint is not None:
            self._load(checkpoint)
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)

    def _load(self, checkpoint: str) -> None:
        state = read_state_dict(checkpoint)
        for name in ("albedo", "depth"):
            marker = f"networks.{name}.encoder."
            part = {key.partition(marker)[2]: value for key, value in state.items() if marker in key}
            try:
                getattr(self, name).load_state_dict(part)
            except RuntimeError as error:
                raise CheckpointError(f"{checkpoint}: not LatentFace's encoder of this width: {error}") from None

    def codes(self, images: Tensor) -> Tensor:
        """Codes N×2C, the albedo's and the depth's, of pictures N×3×S×S in 0..255."""
        images = images / 127.5 - 1
        return torch.cat((self.albedo(images), self.depth(images)), 1).flatten(1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps of the chosen stages of pictures N×3×H×W in 0..255."""
        images = images / 127.5 - 1
        stages = [self._stages(encoder, images) for encoder in (self.albedo, self.depth)]
        return tuple(torch.cat((stages[0][index], stages[1][index]), 1) for index in self.out_indices)

    @staticmethod
    def _stages(encoder: torch.nn.Sequential, x: Tensor) -> list[Tensor]:
        maps = []
        for place, layer in enumerate(encoder[:11]):
            x = layer(x)
            if place in (2, 5, 8, 10):
                maps.append(x)
        return maps
