"""The networks of unsup3d's autoencoder, split into encoder and decoder as LatentFace does.

All convolutions are without bias; a normalised group has four channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ffplug.errors import ConfigError


def _stages(size: int) -> int:
    """How many further halvings pictures of a size need beside the four of 64 pixels."""
    extra = math.log2(size / 64) if size > 0 else -2
    if extra < -1 or extra != int(extra):
        raise ConfigError(f"image_size={size}: expected 32, 64, 128, 256 ...")
    return max(0, int(extra))


def _last(size: int) -> int:
    """Side of the last map before the code: 4, and 2 for pictures of 32 pixels."""
    return min(4, size // 16)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // 4, channels)


def _down(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, 4, 2, 1, bias=False)


def _up(inside: int, outside: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inside, outside, 4, 2, 1, bias=False)


def _same(inside: int, outside: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False)


def _encoder(width: int, code: int, size: int) -> list[nn.Module]:
    """From a picture to a code on a grid of 1×1, without the last activation."""
    layers: list[nn.Module] = [_down(3, width), _norm(width), nn.LeakyReLU(0.2)]
    for channels in (2 * width, 4 * width):
        layers += [_down(channels // 2, channels), _norm(channels), nn.LeakyReLU(0.2)]
    layers += [_down(4 * width, 8 * width), nn.LeakyReLU(0.2)]
    for _ in range(_stages(size)):
        layers += [_down(8 * width, 8 * width), nn.LeakyReLU(0.2)]
    return [*layers, nn.Conv2d(8 * width, code, _last(size), bias=False)]


def spread_evenly(network: nn.Module) -> None:
    """Draw new weights of convolutions so that signals keep their spread through all layers (He et al., ICCV 2015).

    What a last layer gives (1 or 3 channels) begins with a smaller one. PyTorch's own weights, as published, halve
    signals from layer to layer, and codes then tell pictures apart only after thousands of steps.
    """
    for layer in network.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            taps = math.prod(k / s for k, s in zip(layer.kernel_size, layer.stride, strict=True))
            fan = layer.in_channels * (taps if max(layer.stride) > 1 else 1)  # a map of 1×1 gives each pixel one tap
        elif isinstance(layer, nn.Conv2d):
            fan = layer.weight[0].numel()
        else:
            continue
        gain = 0.3 if layer.out_channels in (1, 3) else 2**0.5
        nn.init.normal_(layer.weight, 0.0, gain / fan**0.5)


class CodeNet(nn.Module):
    """An autoencoder with a code between its halves: a picture to a map of depth or albedo.

    Args:
        channels: of the map.
        width: channels of the first layer, a multiple of 4.
        code: length of the code.
        size: side of the pictures: 32, 64, 128, ... Beyond 128 the public code shares the further stages' weights; here
            they have their own.
    """

    def __init__(self, channels: int, width: int = 64, code: int = 256, size: int = 64) -> None:
        super().__init__()
        w = width
        self.encoder = nn.Sequential(*_encoder(w, code, size), nn.ReLU())
        layers = [nn.ConvTranspose2d(code, 8 * w, _last(size), bias=False), nn.ReLU(), _same(8 * w, 8 * w), nn.ReLU()]
        layers += self._stage(8 * w, 4 * w)
        for _ in range(_stages(size)):
            layers += self._stage(4 * w, 4 * w)
        layers += self._stage(4 * w, 2 * w) + self._stage(2 * w, w) + [nn.Upsample(scale_factor=2)]
        for kernel in (3, 5):
            layers += [_same(w, w, kernel), _norm(w), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, _same(w, channels, 5))

    @staticmethod
    def _stage(inside: int, outside: int) -> list[nn.Module]:
        first = [_up(inside, outside), _norm(outside), nn.ReLU()]
        return [*first, _same(outside, outside), _norm(outside), nn.ReLU()]

    @torch.no_grad()
    def scale_code(self, factor: float) -> None:
        """Change the weights so that codes are multiplied by a factor above 0, and maps stay as they are."""
        self.encoder[-2].weight.mul_(factor)
        self.decoder[0].weight.div_(factor)

    def encode(self, image: Tensor) -> Tensor:
        """The code N×C, nothing below 0, of pictures N×3×S×S in -1..1."""
        return self.encoder(image).flatten(1)

    def decode(self, code: Tensor) -> Tensor:
        """The map N×channels×S×S of codes N×C, without an activation."""
        return self.decoder(code[:, :, None, None])


class FactorNet(nn.Module):
    """A few numbers in -1..1 of a picture: the light, or the view.

    Args:
        numbers: how many.
        width: channels of the first layer.
        size: side of the pictures.
    """

    def __init__(self, numbers: int, width: int = 32, size: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside in ((3, width), (width, 2 * width), (2 * width, 4 * width), (4 * width, 8 * width)):
            layers += [_down(inside, outside), nn.ReLU()]
        for _ in range(_stages(size)):
            layers += [_down(8 * width, 8 * width), nn.ReLU()]
        layers += [nn.Conv2d(8 * width, 8 * width, _last(size), bias=False), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Conv2d(8 * width, numbers, 1, bias=False), nn.Tanh())

    def forward(self, image: Tensor) -> Tensor:
        """Numbers N×n of pictures N×3×S×S in -1..1."""
        return self.network(image).flatten(1)


class ConfidenceNet(nn.Module):
    """How far a reconstruction may be off, for each pixel and for each cell of 4×4 pixels.

    Args:
        width: channels of the first layer, a multiple of 4.
        code: length of the code inside.
        size: side of the pictures.
    """

    def __init__(self, width: int = 64, code: int = 128, size: int = 64) -> None:
        super().__init__()
        w = width
        layers = [*_encoder(w, code, size), nn.ReLU()]
        layers += [nn.ConvTranspose2d(code, 8 * w, _last(size), bias=False), nn.ReLU()]
        layers += [_up(8 * w, 4 * w), _norm(4 * w), nn.ReLU()]
        for _ in range(_stages(size)):
            layers += [_up(4 * w, 4 * w), _norm(4 * w), nn.ReLU()]
        self.network = nn.Sequential(*layers, _up(4 * w, 2 * w), _norm(2 * w), nn.ReLU())
        pixels = [_up(2 * w, w), _norm(w), nn.ReLU(), _up(w, w), _norm(w), nn.ReLU(), _same(w, 2, 5), nn.Softplus()]
        self.pixels = nn.Sequential(*pixels)
        self.cells = nn.Sequential(_same(2 * w, 2), nn.Softplus())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Deviations N×2×S×S and N×2×S/4×S/4; the second channel is that of the mirrored twin."""
        shared = self.network(image)
        return self.pixels(shared), self.cells(shared)


class FaceNetworks(nn.Module):
    """What codes a face and decodes it: depth, albedo, light and view.

    Args:
        size: side of the pictures.
        width: channels of the first layers; light and view have half as many.
        code: length of each of the two codes.
    """

    def __init__(self, size: int = 64, width: int = 64, code: int = 256) -> None:
        super().__init__()
        self.size = size
        self.depth = CodeNet(1, width, code, size)
        self.albedo = CodeNet(3, width, code, size)
        self.light = FactorNet(4, width // 2, size)
        self.view = FactorNet(6, width // 2, size)
