"""Building a backbone, and saying what to do where mmpretrain can't be imported."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ffplug.errors import ConfigError
from ffplug.plugin import import_advice
from ffplug_fpnmaa.registry import MODELS


def build_backbone(config: Mapping[str, Any]) -> nn.Module:
    """Build any registered backbone, such as ``mmpretrain.ResNet``.

    Raises:
        ConfigError: mmpretrain, or what it needs, is missing or does not go with the other packages.
    """
    if str(config.get("type", "")).startswith("mmpretrain."):
        try:
            with warnings.catch_warnings():
                # The plain build of mmcv warns of a compiled op that nothing here uses.
                warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")
                importlib.import_module("mmpretrain.models")
        except Exception as error:
            raise ConfigError(
                f"{config['type']}: mmpretrain can't be imported ({type(error).__name__}: {error})"
                f"{import_advice('mmpretrain')}"
            ) from error
    # mmpretrain reads numbers out of tensors while it builds, which those without memory do not have.
    device = torch.get_default_device()
    with torch.device("cpu"):
        backbone = MODELS.build(dict(config))
    return backbone.to(device)
