"""A plain autoencoder, which the 3D-aware one is to be compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor

from ffplug.apis.models import load_weights
from ffplug.errors import ConfigError
from ffplug_latentface.losses import photometric_loss
from ffplug_latentface.models.autoencoder import check_images, example_batch
from ffplug_latentface.models.networks import CodeNet, spread_evenly
from ffplug_latentface.registry import MODELS
from ffplug_latentface.structures import FaceSample


@MODELS.register_module()
class PlainAutoencoder(BaseModel):
    """The autoencoder without 3D: two codes as long and networks as wide, but the two decoders' pictures are added.

    It has the codes of :class:`LatentFaceAutoencoder` under the same names, and so takes its place in
    :class:`RepresentationDiffusion` to tell what the renderer is worth.

    Args:
        image_size: side of the pictures: 32, 64, 128 ...
        width: channels of the first layers, a multiple of 4, at least 8.
        code: length of each of the two codes.
        spread: begin with weights that keep signals' spread (:func:`~ffplug_latentface.models.networks.spread_evenly`),
            for short trainings; as published they are PyTorch's.
        pretrained: weights to start from, or None.
        data_preprocessor: config of what batches the pictures.
        init_cfg: see MMEngine.

    Raises:
        ConfigError: an argument is none of the above.

    Example:
        dict(type="ffplug_latentface.PlainAutoencoder", width=8, code=16)
    """

    def __init__(
        self,
        image_size: int = 64,
        width: int = 64,
        code: int = 256,
        spread: bool = False,
        pretrained: str | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(dict(data_preprocessor or dict(type="ffplug_latentface.FaceDataPreprocessor")), init_cfg)
        if width < 8 or width % 4:
            raise ConfigError(f"width={width}: expected a multiple of 4, at least 8")
        self.image_size, self.code = image_size, code
        self.first = CodeNet(3, width, code, image_size)
        self.second = CodeNet(3, width, code, image_size)
        if spread:
            spread_evenly(self)
        if pretrained is not None:
            load_weights(self, pretrained)

    def codes(self, images: Tensor) -> Tensor:
        """Codes N×2C of pictures N×3×S×S in -1..1; nothing below 0."""
        images = check_images(images, self.image_size)
        return torch.cat((self.first.encode(images), self.second.encode(images)), 1)

    def scale_codes(self, factors: Sequence[float]) -> None:
        """Multiply both codes by factors, within the weights; pictures stay as they are."""
        for network, factor in zip((self.first, self.second), factors, strict=True):
            network.scale_code(factor)

    def pictures(self, codes: Tensor) -> Tensor:
        """Pictures N×3×S×S in -1..1 of codes N×2C."""
        first, second = codes.chunk(2, 1)
        return (self.first.decode(first) + self.second.decode(second)).float().tanh()

    def forward(self, inputs: Tensor, data_samples: list[FaceSample] | None = None, mode: str = "tensor") -> Any:
        """Run the networks.

        Args:
            inputs: N×3×S×S in -1..1.
            data_samples: of the batch.
            mode: ``tensor`` gives codes N×2C, ``predict`` the samples with ``pred_image``, ``loss`` the loss term.

        Raises:
            ConfigError: there is no such mode.
            DataError: the pictures have another size.
        """
        codes = self.codes(inputs)
        if mode == "tensor":
            return codes
        pictures = self.pictures(codes)
        if mode == "loss":
            return {"loss_photometric": photometric_loss(pictures, inputs)}
        if mode != "predict":
            raise ConfigError(f"mode={mode!r}: expected 'tensor', 'predict' or 'loss'")
        for sample, picture in zip(data_samples, pictures, strict=True):
            sample.pred_image = picture / 2 + 0.5
        return data_samples

    def example_batch(self, batch_size: int = 2) -> dict[str, Any]:
        """A small batch as a data loader would give it, always the same: portraits."""
        return example_batch(self.image_size, batch_size)
