"""The facial semantic encoder: the first stages of a ResNet-50 that was trained on heads, and stays as it is."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from ffplug.apis.checkpoints import read_state_dict
from ffplug.apis.weights import find_file, locate
from ffplug.errors import CheckpointError, ConfigError
from ffplug.models.layers import ConvNorm, init_encoder, scale_image
from ffplug.models.parts import FrameEncoder
from ffplug_decflow.registry import MODELS
from ffplug_decflow.torchscript import is_torchscript, read_torchscript

EXPANSION = 4


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions with batch norm and a shortcut; the stride is that of the first (Caffe's ResNet).

    Args:
        inputs: channels of the input.
        width: channels in between; the output has four times as many.
        stride: of the first convolution and the shortcut.
    """

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.layers = nn.Sequential(
            ConvNorm(inputs, width, 1, stride, "batch", relu=True, bias=False),
            ConvNorm(width, width, 3, 1, "batch", relu=True, bias=False),
            ConvNorm(width, outputs, 1, 1, "batch", bias=False),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride, "batch", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """N×inputs×H×W -> N×4·width×H/stride×W/stride."""
        return torch.relu_(self.layers(x) + self.shortcut(x))


@MODELS.register_module()
class FacialSemanticEncoder(FrameEncoder):
    """Stem and first two stages of DAD-3DNet's ResNet-50 (Martyniuk et al., CVPR 2022), frozen: no gradients.

    It sees the whole frame in -1..1, as DecFlow's published code gives it, not DAD-3DNet's normalised crops. Weights
    are the user's own: DAD-3DNet's, which are for non-commercial use, or those inside a checkpoint of DecFlow, which
    comes later and goes over what is here.

    Args:
        width: channels of the stem; the output has eight times as many.
        depths: bottlenecks of the stages at 1/4 and 1/8.
        checkpoint: name of released weights (``'dad_3dnet'``, see ``ffplug weights list``) or a file that holds the
            encoder's tensors; None for random weights.
        missing_checkpoint: ``'error'``, or ``'warn'`` to go on with random weights where the file is not there.
        init_cfg: see MMEngine's ``BaseModule``.

    Raises:
        CheckpointError: the weights are not there, or not this encoder's.

    Example:
        dict(type="ffplug_decflow.FacialSemanticEncoder", width=8, depths=(1, 1))
    """

    def __init__(
        self,
        width: int = 64,
        depths: Sequence[int] = (3, 4),
        checkpoint: str | None = None,
        missing_checkpoint: str = "error",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if missing_checkpoint not in ("error", "warn"):
            raise ConfigError(f"missing_checkpoint={missing_checkpoint!r}: expected 'error' or 'warn'")
        if len(depths) != 2 or min(depths) < 1:
            raise ConfigError(f"depths={tuple(depths)}: expected the bottlenecks of two stages, each 1 or more")
        self.out_channels = 2 * EXPANSION * width
        self.stem = ConvNorm(3, width, 7, 2, "batch", relu=True, bias=False)
        stages, inputs = [], width
        for index, depth in enumerate(depths):
            blocks = []
            for position in range(depth):
                blocks.append(Bottleneck(inputs, width << index, 2 if index and not position else 1))
                inputs = EXPANSION * (width << index)
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        init_encoder(self)
        if checkpoint is not None:
            self._load(checkpoint, missing_checkpoint)
        self.requires_grad_(False)
        self.eval()

    def _load(self, checkpoint: str, missing: str) -> None:
        path, released = locate(checkpoint)
        if not path.is_file():
            hint = f"; {released.origin}" if released else ""
            message = f"FacialSemanticEncoder: weights {path} are not there{hint}"
            if missing == "error":
                raise CheckpointError(f"{message}. Pass missing_checkpoint='warn' to go on with random ones")
            print_log(f"{message}. Going on with random frozen weights.", "current", logging.WARNING)
            return
        self.load(find_file(checkpoint)[0])

    def load(self, path: str | os.PathLike) -> None:
        """Load the encoder from a file, whole: DAD-3DNet's TorchScript archive, or tensors in its names or DecFlow's.

        No code of the file is run.

        Raises:
            CheckpointError: unreadable or unsafe file, or no such encoder in it.
        """
        from ffplug_decflow.converters import rename_semantic

        state = rename_semantic(read_torchscript(path) if is_torchscript(path) else read_state_dict(path))
        expected = self.state_dict()
        known = {k: v for k, v in state.items() if k in expected and v.shape == expected[k].shape}
        missing = [k for k in expected if k not in known and not k.endswith("num_batches_tracked")]
        if missing:
            raise CheckpointError(
                f"{path}: not the weights of this FacialSemanticEncoder: {len(missing)} tensors missing or of another "
                f"shape ({', '.join(missing[:3])}); expected a ResNet-50 in DAD-3DNet's or DecFlow's names"
            )
        self.load_state_dict(known, strict=False)

    def forward(self, image: Tensor) -> Tensor:
        """N×3×H×W, RGB in 0..255 -> N×8·width×H/8×W/8."""
        with torch.no_grad():
            return self.stages(F.max_pool2d(self.stem(scale_image(image)), 3, 2, 1))
