"""FlowFormer's encoder: the first stages of Twins-SVT, from timm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from timm.models.twins import Twins
from torch import Tensor, nn

from ffplug.apis.checkpoints import read_state_dict
from ffplug.apis.weights import find_file
from ffplug.errors import CheckpointError, ConfigError
from ffplug.models.layers import Linear, scale_image
from ffplug.models.parts import FrameEncoder
from ffplug_flowformer.registry import MODELS

PATCH_SIZE = 4


def use_fast_linears(network: nn.Module) -> None:
    """Put :class:`~ffplug.models.layers.Linear` in place of a network's linear layers, with the same parameters.

    A perceptron's GELU, of timm's ``Mlp``, becomes the activation of its first layer.
    """
    for module in list(network.modules()):
        for name, layer in list(module.named_children()):
            if type(layer) is nn.Linear:
                with torch.device("meta"):  # no storage and no random numbers for parameters that are replaced at once
                    fast = Linear(layer.in_features, layer.out_features, layer.bias is not None)
                fast.weight, fast.bias = layer.weight, layer.bias
                setattr(module, name, fast)
        if isinstance(module, Mlp) and type(module.act) is nn.GELU:
            module.fc1.activation = "gelu"
            module.act = nn.Identity()


@MODELS.register_module()
class TwinsFeatures(FrameEncoder):
    """Two stages of Twins-SVT (Chu et al., NeurIPS 2021); the defaults are those of ``twins_svt_large``.

    Each stage alternates attention within 7x7 windows, whose padding takes part unmasked, and attention to a thinned
    grid. Frames smaller than 32 px in a direction, too small for the thinning, are extended by repeating their border.

    Args:
        embed_dims: channels of the stages.
        heads: attention heads of the stages.
        depths: blocks of the stages.
        thinning: stride of the keys' and values' grid in each stage.
        window: side of the attention windows, in cells of the stage.
        weights: timm's ImageNet weights, by name (``twins_svt_large``, for the defaults) or file, that
            :meth:`init_weights` reads, for training from scratch as published; None starts at random.
        init_cfg: see MMEngine's ``BaseModule``.

    Raises:
        ConfigError: sizes that do not divide, or not one value for each stage.
    """

    def __init__(
        self,
        embed_dims: Sequence[int] = (128, 256),
        heads: Sequence[int] = (4, 8),
        depths: Sequence[int] = (2, 2),
        thinning: Sequence[int] = (8, 4),
        window: int = 7,
        weights: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        settings = {"embed_dims": embed_dims, "heads": heads, "depths": depths, "thinning": thinning}
        for name, values in settings.items():
            if len(values) != 2:
                raise ConfigError(f"TwinsFeatures: {name}={tuple(values)}: expected two values, one for each stage")
        for channels, count in zip(embed_dims, heads, strict=True):
            if channels % count:
                raise ConfigError(f"TwinsFeatures: embed_dims {channels} is not divisible by {count} heads")
        self.backbone = Twins(
            patch_size=PATCH_SIZE,
            num_classes=0,
            embed_dims=tuple(embed_dims),
            num_heads=tuple(heads),
            mlp_ratios=(4, 4),
            depths=tuple(depths),
            sr_ratios=tuple(thinning),
            wss=(window, window),
        )
        use_fast_linears(self.backbone)
        self.backbone.norm = nn.Identity()  # ends the whole Twins; features leave before it
        self.embed_dims = tuple(embed_dims)
        self.weights = weights
        self.out_channels = embed_dims[-1]
        self._smallest = max(PATCH_SIZE * 2**stage * stride for stage, stride in enumerate(thinning))

    def init_weights(self) -> None:
        """Start from the ImageNet weights, where a file of them is given.

        Raises:
            CheckpointError: the file is missing, unreadable, or of another network.
        """
        super().init_weights()
        if self.weights is None:
            return
        state, expected = read_state_dict(find_file(self.weights)[0]), self.backbone.state_dict()
        wrong = [key for key, value in expected.items() if key not in state or state[key].shape != value.shape]
        if wrong:
            raise CheckpointError(
                f"{self.weights}: {len(wrong)} of {len(expected)} keys of Twins are missing or of another shape "
                f"({', '.join(wrong[:3])} ...): expected timm's weights for embed_dims={self.embed_dims}"
            )
        self.backbone.load_state_dict({key: state[key] for key in expected})

    def forward(self, image: Tensor) -> Tensor:
        """N×3×H×W, RGB in 0..255, H and W multiples of 8 -> N×out_channels×H/8×W/8."""
        height, width = image.shape[-2:]
        rows, columns = max(self._smallest - height, 0), max(self._smallest - width, 0)
        if rows or columns:
            image = F.pad(image, (0, columns, 0, rows), mode="replicate")
        features = self.backbone.forward_intermediates(
            scale_image(image), indices=[1], norm=False, intermediates_only=True
        )[0]
        return features[..., : height // self.stride, : width // self.stride]
