"""Losses of the autoencoder: photometric and perceptual with confidence, and smoothness of depth."""

from __future__ import annotations

import logging
import os

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ffplug.apis.checkpoints import read_state_dict
from ffplug.errors import CheckpointError
from ffplug_latentface.registry import MODELS

_EPS = 1e-7
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CHANNELS = ((3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256))
_PLACES = (0, 2, 5, 7, 10, 12, 14)
"""Where VGG16's first seven convolutions stand in torchvision's ``features``."""


def photometric_loss(first: Tensor, second: Tensor, mask: Tensor | None = None, deviation: Tensor | None = None):
    """Mean absolute difference, or the negative log-likelihood of a Laplacian (unsup3d, equation 3).

    Args:
        first: N×C×H×W.
        second: the same.
        mask: N×1×H×W, what counts.
        deviation: N×1×H×W, the Laplacian's; None takes plain differences.
    """
    loss = (first - second).abs()
    if deviation is not None:
        loss = loss * 2**0.5 / (deviation + _EPS) + (deviation + _EPS).log()
    return _masked_mean(loss, mask)


def smoothness_loss(depth: Tensor, low: float = 0.9, high: float = 1.1) -> Tensor:
    """Mean absolute step of depth N×S×S between neighbours, in shares of its range."""
    down, right = depth.diff(dim=1).abs(), depth.diff(dim=2).abs()
    return (down[:, :, :-1] + right[:, :-1]).mean() / (high - low)


def _masked_mean(loss: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return loss.mean()
    mask = mask.expand_as(loss)
    return (loss * mask).sum() / mask.sum().clamp(min=_EPS)


@MODELS.register_module()
class VGGPerceptualLoss(nn.Module):
    """Squared differences of VGG16's features after its seventh convolution (``relu3_3``), frozen.

    Args:
        weights: torchvision's VGG16 trained on ImageNet (``vgg16-397923af.pth``, got by hand), or any file with the
            same first layers. None keeps random weights that follow from the seed: edges and colours at several scales,
            not what objects look like.
        seed: of random weights.

    Raises:
        CheckpointError: the file is unreadable, or holds other layers.

    Example:
        dict(type="ffplug_latentface.VGGPerceptualLoss")
    """

    def __init__(self, weights: str | os.PathLike | None = None, seed: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(inside, outside, 3, padding=1) for inside, outside in _CHANNELS)
        if weights is None:
            print_log(
                "VGGPerceptualLoss: random features; give weights='.../vgg16-397923af.pth' for those of ImageNet",
                logger="current",
                level=logging.WARNING,
            )
            generator = torch.Generator().manual_seed(seed)
            for layer in self.layers:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)
        else:
            self._load(weights)
        self.requires_grad_(False)
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(_MEAN).view(shape), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(shape), persistent=False)

    def _load(self, weights: str | os.PathLike) -> None:
        state = read_state_dict(weights)
        for place, layer in zip(_PLACES, self.layers, strict=True):
            for name, parameter in layer.named_parameters():
                key = f"features.{place}.{name}"
                if key not in state or state[key].shape != parameter.shape:
                    found = tuple(state[key].shape) if key in state else "nothing"
                    raise CheckpointError(f"{weights}: expected VGG16's {key} {tuple(parameter.shape)}, found {found}")
                parameter.data.copy_(state[key])

    def features(self, image: Tensor) -> Tensor:
        """Features N×256×H/4×W/4 of pictures N×3×H×W in -1..1."""
        x = (image / 2 + 0.5 - self.mean) / self.deviation
        for number, layer in enumerate(self.layers):
            if number in (2, 4):
                x = nn.functional.max_pool2d(x, 2)
            x = layer(x).relu()
        return x

    def forward(
        self, found: Tensor, wanted: Tensor, mask: Tensor | None = None, deviation: Tensor | None = None
    ) -> Tensor:
        """The loss of features; a Gaussian's negative log-likelihood where a deviation is given.

        Args:
            found: features N×256×h×w, as from :meth:`features`.
            wanted: the same.
            mask: N×1×4h×4w, what counts of the pictures.
            deviation: N×1×h×w.
        """
        loss = (found - wanted) ** 2
        if deviation is not None:
            loss = loss / (2 * deviation**2 + _EPS) + (deviation + _EPS).log()
        if mask is not None:
            mask = nn.functional.avg_pool2d(mask, mask.shape[-1] // found.shape[-1])
        return _masked_mean(loss, mask)
