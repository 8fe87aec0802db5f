"""Terms of the training loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.apis.checkpoints import read_state_dict
from ffplug.apis.weights import find_file
from ffplug.errors import CheckpointError, ConfigError
from ffplug_stss.models.network import enlarge
from ffplug_stss.registry import MODELS

NORMS = ("l1", "l2")
_VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


@MODELS.register_module()
class ReshadingLoss(nn.Module):
    """Mean error, and once more inside of holes (section "Loss" of STSS, AAAI 2024).

    A pixel of the result is in a hole where the enlarged mask is exactly 0, so a hole of one pixel counts as none.

    Args:
        hole_weight: factor of the mean error inside of holes; 3 is what the published code computes (it sums over
            colours and divides by pixels).
        norm: ``l1``, the absolute error, is published; ``l2`` is 20 times the squared one. A short training gains more
            by the latter: the absolute error is content with the enlarged frame wherever that is right more often than
            not.

    Raises:
        ConfigError: there is no such norm.

    Example:
        dict(type="ffplug_stss.ReshadingLoss")
    """

    def __init__(self, hole_weight: float = 3.0, norm: str = "l1") -> None:
        super().__init__()
        if norm not in NORMS:
            raise ConfigError(f"norm={norm!r}: expected one of {', '.join(NORMS)}")
        self.hole_weight, self.norm = hole_weight, norm

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Compare frames.

        Args:
            prediction: N×3×2H×2W.
            target: the same, true.
            mask: N×1×H×W, 1 = valid.

        Returns:
            ``loss_l1`` (or ``loss_l2``) and ``loss_hole``; the latter is 0 where there is no hole.
        """
        error = (prediction - target).abs()
        if self.norm == "l2":
            error = 20 * error.square()
        hole = (enlarge(mask) == 0).to(error.dtype)
        inside = (error * hole).sum() / (3 * hole.sum()).clamp(min=1e-6)
        return {f"loss_{self.norm}": error.mean(), "loss_hole": self.hole_weight * inside}


@MODELS.register_module()
class PerceptualLoss(nn.Module):
    """Distance of frames in the features of VGG-16 (LPIPS, Zhang et al., CVPR 2018, version 0.1).

    Both networks are frozen and lie in files that a user fetches (``ffplug weights pull vgg16_imagenet lpips_vgg``);
    checkpoints leave them out. It costs more than ten times the network itself.

    Args:
        weight: factor of the term.
        backbone: VGG-16 trained on ImageNet as torchvision has it: a path or the name of released weights.
        heads: the five linear heads of the LPIPS package, likewise.
        frames: how many of a batch's frames to compare, the first ones; None compares all.

    Raises:
        CheckpointError: a file is not on this machine, or of another network.

    Example:
        dict(type="ffplug_stss.PerceptualLoss")
    """

    def __init__(
        self,
        weight: float = 0.01,
        backbone: str = "vgg16_imagenet",
        heads: str = "lpips_vgg",
        frames: int | None = None,
    ) -> None:
        super().__init__()
        if frames is not None and frames < 1:
            raise ConfigError(f"frames={frames}: expected at least 1, or None")
        self.weight = weight
        self.frames = frames
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])
        self.blocks, channels = nn.ModuleList(), 3
        for widths in _VGG:
            block = nn.ModuleList()
            for width in widths:
                block.append(nn.Conv2d(channels, width, 3, padding=1))
                channels = width
            self.blocks.append(block)
        self.heads = nn.ModuleList([nn.Conv2d(widths[-1], 1, 1, bias=False) for widths in _VGG])
        self._load(backbone, heads)
        self.requires_grad_(False)

    def _load(self, backbone: str, heads: str) -> None:
        files = [find_file(name)[0] for name in (backbone, heads)]
        vgg, linear = (read_state_dict(path) for path in files)
        convolutions = [layer for block in self.blocks for layer in block]
        # torchvision counts activations and poolings too: convolutions are what has weights.
        names = sorted({int(key.split(".")[1]) for key in vgg if key.startswith("features.")})
        state = [(f"features.{name}.", layer) for name, layer in zip(names, convolutions, strict=False)]
        if len(names) != len(convolutions):
            raise CheckpointError(f"{files[0]}: not VGG-16 of torchvision: {len(names)} convolutions, expected 13")
        for place, head in enumerate(self.heads):
            key = f"lin{place}.model.1.weight"
            if key not in linear or linear[key].shape != head.weight.shape:
                raise CheckpointError(f"{files[1]}: not the heads of LPIPS for VGG-16: no {key} of the right shape")
            head.load_state_dict({"weight": linear[key]})
        for prefix, layer in state:
            found = {key.removeprefix(prefix): value for key, value in vgg.items() if key.startswith(prefix)}
            try:
                layer.load_state_dict(found)
            except RuntimeError as error:
                raise CheckpointError(f"{files[0]}: not VGG-16 of torchvision: {error}") from None

    def features(self, frames: Tensor) -> list[Tensor]:
        """Features of frames N×3×H×W (0..1) before each pooling, of length 1 at each pixel."""
        x = ((2 * frames - 1) - self.shift) / self.scale
        found = []
        for place, block in enumerate(self.blocks):
            x = F.max_pool2d(x, 2) if place else x
            for layer in block:
                x = F.relu(layer(x))
            found.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Compare frames as :class:`ReshadingLoss` does; gives ``loss_perceptual``."""
        pairs = zip(self.features(prediction[: self.frames]), self.features(target[: self.frames]), strict=True)
        terms = [head((one - other) ** 2).mean() for head, (one, other) in zip(self.heads, pairs, strict=True)]
        return {"loss_perceptual": self.weight * sum(terms)}
