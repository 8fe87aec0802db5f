"""Faces of photographs, cropped as VoxCeleb's frames are."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np
import torch
from ffplug_face.crops import FaceDetector
from torch import Tensor, nn

from ffplug.apis.models import build_model
from ffplug.apis.run_folder import resolve_run
from ffplug.datasets.formats import read_image
from ffplug.errors import CheckpointError, ConfigError

LARGEST = 1600
"""Longer side, in pixels, that a detector is given at most."""


def crop_face(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Cut a square out round a face; beyond the picture its border is repeated.

    Args:
        image: H×W×3.
        box: left, top, width, height, pixels, as a detector gives it.

    Returns:
        2c×2c×3, with c 1.1 times half the box's mean side, and its middle 0.15c below the box's, as LatentFace prepares
        VoxCeleb.
    """
    left, top, width, height = box
    half = max(1, int((width + height) / 4 * 1.1))
    x, y = round(left + width / 2), round(top + height / 2 + 0.15 * half)
    columns = np.arange(x - half, x + half).clip(0, image.shape[1] - 1)
    rows = np.arange(y - half, y + half).clip(0, image.shape[0] - 1)
    return image[rows[:, None], columns]


def read_photo(path: str | os.PathLike, size: int, detector: FaceDetector | None = None) -> Tensor:
    """Read the face of a photograph as 3×S×S in -1..1.

    Args:
        path: any picture; grey ones too.
        size: side of the result.
        detector: finds the largest face; without one, the middle square of the picture is taken as a crop of a face.

    Raises:
        DataError: the file is no picture, or the detector finds no face in it.
    """
    image = read_image(path)
    if detector is not None:
        image = crop_face(image, _find(image, detector, str(path)))
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    image = image[top : top + side, left : left + side]
    image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
    return torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1


def _find(image: np.ndarray, detector: FaceDetector, name: str) -> tuple[float, float, float, float]:
    """The box of the largest face; a huge picture is looked through at a smaller size."""
    height, width = image.shape[:2]
    scale = max(1.0, max(height, width) / LARGEST)
    if scale > 1:
        size = max(1, round(width / scale)), max(1, round(height / scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    left, top, wide, tall = detector.one(image, name).box
    return left * scale, top * scale, wide * scale, tall * scale


def load_model(model: str | None, checkpoint: str | None, random_weights: bool) -> nn.Module:
    """The second stage's model of a name, config or work folder, with its weights.

    Raises:
        CheckpointError: there are no weights, and random ones were not asked for.
        ConfigError: it is another kind of model.
    """
    config, path = resolve_run(model, checkpoint)
    if path is None and not random_weights:
        raise CheckpointError(
            "no weights: give --model work_dirs/latentface_small2 after `ffplug train latentface_small2`, or "
            "--checkpoint; --random-weights tries the command out"
        )
    config = _without_start(build_config(config or "latentface"))
    network = build_model(config, checkpoint=path)
    if not hasattr(network, "embed"):
        raise ConfigError(f"{model or checkpoint}: not a model of both stages, such as latentface")
    return network


def build_config(config: Any) -> dict[str, Any]:
    """The ``model`` of whatever :func:`ffplug.build_model` takes, as a dict."""
    from ffplug.config import load_config

    loaded = load_config(config) if isinstance(config, str | os.PathLike) else config
    loaded = loaded.get("model", loaded)
    return loaded.to_dict() if hasattr(loaded, "to_dict") else dict(loaded)


def _without_start(config: dict[str, Any]) -> dict[str, Any]:
    """A model's config without the weights that its training started from."""
    return {
        key: _without_start(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key != "pretrained"
    }
