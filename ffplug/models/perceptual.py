"""LPIPS, the learned perceptual distance of pictures, of networks that lie in the user's files."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.apis.checkpoints import read_state_dict
from ffplug.apis.weights import find_file, locate
from ffplug.datasets.base import choose
from ffplug.errors import CheckpointError, DataError

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class _Trunk(NamedTuple):
    """The convolutions of a network as torchvision has it: blocks of (channels, kernel, stride, padding)."""

    title: str
    blocks: tuple[tuple[tuple[int, int, int, int], ...], ...]
    pooled: tuple[int, ...]
    """Blocks that begin with pooling."""
    pool: int
    """Side of what is pooled; the step is 2."""
    least: int
    """Side of the smallest picture."""
    weights: tuple[str, str]
    """Names of the released weights, and of their heads'."""


_TRUNKS = {
    "alex": _Trunk(
        "AlexNet",
        (((64, 11, 4, 2),), ((192, 5, 1, 2),), ((384, 3, 1, 1),), ((256, 3, 1, 1),), ((256, 3, 1, 1),)),
        (1, 2),
        3,
        31,
        ("alexnet_imagenet", "lpips_alex"),
    ),
    "vgg": _Trunk(
        "VGG-16",
        tuple(((width, 3, 1, 1),) * depth for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))),
        (1, 2, 3, 4),
        2,
        16,
        ("vgg16_imagenet", "lpips_vgg"),
    ),
}
NETWORKS = tuple(_TRUNKS)


def lpips_files(network: str = "alex") -> tuple[str, str]:
    """The names of released weights that LPIPS with a network needs: its convolutions', and its heads'.

    Raises:
        ConfigError: there is no such network.
    """
    return _TRUNKS[choose("network", network, NETWORKS)].weights


def missing_files(network: str = "alex") -> list[str]:
    """Those of :func:`lpips_files` that are not on this machine."""
    return [name for name in lpips_files(network) if not locate(name)[0].is_file()]


class LPIPS(nn.Module):
    """Distance of pictures in a network's features (Zhang et al., CVPR 2018, version 0.1); 0 for equal ones.

    Both the network and the five linear heads are frozen and lie in files that a user fetches
    (``ffplug weights pull alexnet_imagenet lpips_alex``).

    Args:
        network: ``alex``, whose distance agrees best with people, or ``vgg``, which is smoother as a loss.
        backbone: the network trained on ImageNet as torchvision has it: a path or the name of released weights; None
            takes those of :func:`lpips_files`.
        heads: the linear heads of the LPIPS package, likewise.

    Raises:
        CheckpointError: a file is not on this machine, or of another network.
        ConfigError: there is no such network.
    """

    def __init__(
        self,
        network: str = "alex",
        backbone: str | os.PathLike | None = None,
        heads: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        files = lpips_files(network)
        self.trunk = _TRUNKS[network]
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])
        self.blocks, channels = nn.ModuleList(), 3
        for block in self.trunk.blocks:
            layers = nn.ModuleList()
            for width, kernel, stride, padding in block:
                layers.append(nn.Conv2d(channels, width, kernel, stride, padding))
                channels = width
            self.blocks.append(layers)
        self.heads = nn.ModuleList([nn.Conv2d(block[-1].out_channels, 1, 1, bias=False) for block in self.blocks])
        self._load_trunk(backbone or files[0])
        self._load_heads(heads or files[1])
        self.requires_grad_(False)

    def _load_trunk(self, name: str | os.PathLike) -> None:
        path = find_file(name)[0]
        state = read_state_dict(path)
        convolutions = [layer for block in self.blocks for layer in block]
        # torchvision counts activations and poolings too: convolutions are what has weights.
        places = sorted({int(key.split(".")[1]) for key in state if key.startswith("features.")})
        wrong = f"{path}: not {self.trunk.title} of torchvision"
        if len(places) != len(convolutions):
            raise CheckpointError(f"{wrong}: {len(places)} convolutions, expected {len(convolutions)}")
        for place, layer in zip(places, convolutions, strict=True):
            prefix = f"features.{place}."
            found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            try:
                layer.load_state_dict(found)
            except RuntimeError as error:
                raise CheckpointError(f"{wrong}: {prefix}*: {error}") from None

    def _load_heads(self, name: str | os.PathLike) -> None:
        path = find_file(name)[0]
        state = read_state_dict(path)
        for place, head in enumerate(self.heads):
            key = f"lin{place}.model.1.weight"
            if key not in state or state[key].shape != head.weight.shape:
                raise CheckpointError(
                    f"{path}: not the heads of LPIPS for {self.trunk.title}: no {key} of the right shape"
                )
            head.load_state_dict({"weight": state[key]})

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Features of pictures N×3×H×W (0..1) after each of the five blocks, of length 1 at each pixel.

        Raises:
            DataError: the pictures are too small for the network.
        """
        if min(pictures.shape[2:]) < self.trunk.least:
            raise DataError(
                f"LPIPS of pictures of {tuple(pictures.shape[2:])} pixels: {self.trunk.title} needs at least "
                f"{self.trunk.least}×{self.trunk.least}"
            )
        x = ((2 * pictures - 1) - self.shift) / self.scale
        found = []
        for place, block in enumerate(self.blocks):
            x = F.max_pool2d(x, self.trunk.pool, 2) if place in self.trunk.pooled else x
            for layer in block:
                x = F.relu(layer(x))
            # A norm, unlike a root of a sum, has a slope where all is 0.
            found.append(x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-10))
        return found

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Distances N of pictures N×3×H×W in 0..1."""
        pairs = zip(self.heads, self.features(one), self.features(other), strict=True)
        return sum(head((mine - theirs) ** 2).mean(dim=(1, 2, 3)) for head, mine, theirs in pairs)
