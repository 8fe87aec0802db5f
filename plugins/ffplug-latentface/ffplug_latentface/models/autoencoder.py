"""The first stage: a picture as depth, albedo, light and view, learnt from pictures alone (unsup3d)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor

from ffplug.apis.models import load_weights
from ffplug.errors import ConfigError, DataError
from ffplug_latentface.losses import photometric_loss, smoothness_loss
from ffplug_latentface.models.factors import BACKGROUND, Factors, Renderer, depth_of, light_of, view_of
from ffplug_latentface.models.networks import ConfidenceNet, FaceNetworks, spread_evenly
from ffplug_latentface.registry import MODELS
from ffplug_latentface.structures import FaceSample


@MODELS.register_module()
class FaceDataPreprocessor(BaseDataPreprocessor):
    """Stack pictures, or videos of as many frames, and bring them to -1..1.

    Example:
        dict(type="ffplug_latentface.FaceDataPreprocessor")
    """

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Turn a collated batch into model inputs.

        Args:
            data: ``inputs``, a list of uint8 tensors 3×S×S or F×3×S×S, and ``data_samples``.
            training: makes no difference.

        Returns:
            ``inputs`` float32 N×3×S×S or N×F×3×S×S in -1..1.

        Raises:
            DataError: the pictures of the batch differ in size.
        """
        data = self.cast_data(data)
        inputs = data["inputs"]
        sizes = {tuple(item.shape) for item in inputs}
        if len(sizes) > 1:
            raise DataError(f"pictures of different sizes in one batch: {sorted(sizes)}; resize them alike")
        inputs = inputs if isinstance(inputs, Tensor) else torch.stack(tuple(inputs))
        return {**data, "inputs": inputs.float() / 127.5 - 1}


def check_images(images: Tensor, side: int) -> Tensor:
    """Pictures N×3×S×S as they are.

    Raises:
        DataError: they have another size.
    """
    if images.dim() != 4 or tuple(images.shape[1:]) != (3, side, side):
        raise DataError(f"pictures {tuple(images.shape)}: this network takes N×3×{side}×{side}; resize face crops")
    return images


def example_batch(side: int, batch_size: int) -> dict[str, Any]:
    """Portraits as a data loader would give them, always the same."""
    from ffplug_face.portraits import draw_portraits, render_portraits

    images = render_portraits(draw_portraits(0, 0, batch_size), side).images
    samples = [FaceSample(metainfo=dict(sample_id=f"example/{k}", dataset="example")) for k in range(batch_size)]
    return dict(inputs=list(images), data_samples=samples)


def _channel(deviations: Tensor | None, number: int) -> Tensor | None:
    return None if deviations is None else deviations[:, number : number + 1]


@MODELS.register_module()
class LatentFaceAutoencoder(BaseModel):
    """Codes of depth and albedo, light and view of a face; a renderer makes the picture of them again.

    Args:
        image_size: side of the pictures: 32, 64, 128 ...
        width: channels of the first layers.
        code: length of each of the two codes.
        camera: ``exact``, or ``legacy`` (see :class:`~ffplug_latentface.models.factors.Renderer`).
        reconstruct: ``inverse_warp``, or ``colours``.
        perceptual: config of the perceptual loss, or None.
        perceptual_weight: weight of that loss.
        mirrored_weight: weight of the losses of the mirrored twin.
        smoothness: weight of the depth's smoothness; 0 for faces, as published.
        confidence: learn how far each pixel may be off, as published, so that what is not symmetric counts less. False
            takes plain differences; faces on an even background would else count for next to nothing.
        depth_range: how far a view moves along z; 0 as published.
        spread: begin with weights that keep signals' spread (:func:`~ffplug_latentface.models.networks.spread_evenly`),
            for short trainings; as published they are PyTorch's.
        pretrained: weights to start from, or None.
        data_preprocessor: config of what batches the pictures.
        init_cfg: see MMEngine.

    Raises:
        ConfigError: an argument is none of the above.

    Example:
        dict(type="ffplug_latentface.LatentFaceAutoencoder", width=8, code=16)
    """

    def __init__(
        self,
        image_size: int = 64,
        width: int = 64,
        code: int = 256,
        camera: str = "exact",
        reconstruct: str = "inverse_warp",
        perceptual: Mapping[str, Any] | None = None,
        perceptual_weight: float = 1.0,
        mirrored_weight: float = 0.5,
        smoothness: float = 0.0,
        confidence: bool = True,
        depth_range: float = 0.0,
        spread: bool = False,
        pretrained: str | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(dict(data_preprocessor or dict(type="ffplug_latentface.FaceDataPreprocessor")), init_cfg)
        if width < 8 or width % 4:
            raise ConfigError(f"width={width}: expected a multiple of 4, at least 8")
        self.image_size, self.code = image_size, code
        self.networks = FaceNetworks(image_size, width, code)
        if spread:
            spread_evenly(self.networks.albedo)
            spread_evenly(self.networks.depth)
        self.confidence = ConfidenceNet(width, code // 2, image_size) if confidence else None
        self.renderer = Renderer(image_size, camera, reconstruct)
        self.perceptual = MODELS.build(dict(perceptual)) if perceptual is not None else None
        if confidence and self.perceptual is None:
            self.confidence.cells.requires_grad_(False)
        self.perceptual_weight, self.mirrored_weight = perceptual_weight, mirrored_weight
        self.smoothness, self.depth_range = smoothness, depth_range
        if pretrained is not None:
            load_weights(self, pretrained)

    def checkpoint_exclude_prefixes(self) -> tuple[str, ...]:
        """What checkpoints leave out: the perceptual loss's network."""
        return ("perceptual.",)

    def codes(self, images: Tensor) -> Tensor:
        """Codes N×2C of pictures N×3×S×S in -1..1: the albedo's, then the depth's; nothing below 0."""
        images = check_images(images, self.image_size)
        return torch.cat((self.networks.albedo.encode(images), self.networks.depth.encode(images)), 1)

    def scale_codes(self, factors: Sequence[float]) -> None:
        """Multiply the albedo's and the depth's code by factors, within the weights; decoded maps stay as they are."""
        for network, factor in zip((self.networks.albedo, self.networks.depth), factors, strict=True):
            network.scale_code(factor)

    def shape_and_colour(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Canonical depth N×S×S and albedo N×3×S×S (-1..1) of codes N×2C."""
        albedo, depth = codes.chunk(2, 1)
        return depth_of(self.networks.depth.decode(depth)), self.networks.albedo.decode(albedo).float().tanh()

    def factors(self, images: Tensor, codes: Tensor | None = None) -> Factors:
        """The factors of pictures N×3×S×S in -1..1, or light and view of these and the rest of other codes."""
        depth, albedo = self.shape_and_colour(self.codes(images) if codes is None else codes)
        light = light_of(self.networks.light(images))
        return Factors(depth, albedo, light, view_of(self.networks.view(images), self.depth_range))

    def render(self, factors: Factors) -> tuple[Tensor, Tensor]:
        """Pictures N×3×S×S from -1, and their depth; in float32."""
        with torch.autocast(factors.depth.device.type, enabled=False):
            return self.renderer.render(factors)

    def forward(self, inputs: Tensor, data_samples: list[FaceSample] | None = None, mode: str = "tensor") -> Any:
        """Run the networks.

        Args:
            inputs: N×3×S×S in -1..1.
            data_samples: of the batch.
            mode: ``tensor`` gives codes N×2C, ``predict`` the samples with ``pred_`` fields, ``loss`` the loss terms.

        Raises:
            ConfigError: there is no such mode.
            DataError: the pictures have another size.
        """
        if mode == "tensor":
            return self.codes(inputs)
        if mode == "loss":
            return self._loss(inputs)
        if mode != "predict":
            raise ConfigError(f"mode={mode!r}: expected 'tensor', 'predict' or 'loss'")
        factors = self.factors(inputs)
        pictures, depth = self.render(factors)
        seen = depth < BACKGROUND
        for number, sample in enumerate(data_samples):
            sample.pred_image = (pictures[number] / 2 + 0.5).clamp(0, 1)
            sample.pred_mask = seen[number]
            sample.pred_depth = factors.depth[number]
            sample.pred_albedo = factors.albedo[number] / 2 + 0.5
        return data_samples

    def _loss(self, images: Tensor) -> dict[str, Tensor]:
        factors = self.factors(images)
        pictures, depth = self.render(factors.with_mirrored())
        seen = (depth < BACKGROUND).float()[:, None].detach()
        first, twin = seen.chunk(2)
        mask = first * twin
        pixels = cells = None
        if self.confidence is not None:
            pixels, cells = (deviation.float() for deviation in self.confidence(images))
        weights = (("", 1.0, 0), ("_mirrored", self.mirrored_weight, 1))
        losses = {}
        found = pictures.chunk(2)
        for name, weight, half in weights:
            term = photometric_loss(found[half], images, mask, _channel(pixels, half))
            losses[f"loss_photometric{name}"] = weight * term
        if self.perceptual is not None:
            with torch.no_grad():
                wanted = self.perceptual.features(images)
            features = self.perceptual.features(pictures).chunk(2)
            for name, weight, half in weights:
                term = self.perceptual(features[half], wanted, mask, _channel(cells, half))
                losses[f"loss_perceptual{name}"] = self.perceptual_weight * weight * term
        if self.smoothness:
            losses["loss_smoothness"] = self.smoothness * smoothness_loss(factors.depth)
        return losses

    def example_batch(self, batch_size: int = 2) -> dict[str, Any]:
        """A small batch as a data loader would give it, always the same: portraits."""
        return example_batch(self.image_size, batch_size)
