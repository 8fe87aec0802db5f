"""What frozen image encoders share: loading, staying frozen, and keeping features on disk."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from ffplug.apis.checkpoints import read_state_dict
from ffplug.apis.weights import find_file, locate
from ffplug.errors import CheckpointError, ConfigError
from ffplug.models.parts import FrameEncoder

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

PREFIXES = ("image_encoder.", "sam_encoder.", "model.sam_encoder.", "module.sam_encoder.")
"""Under which the files of SAM, MobileSAM and SAMFlow keep the image encoder."""


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of N×C×H×W."""

    def forward(self, x: Tensor) -> Tensor:
        """N×C×H×W -> N×C×H×W."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def make_neck(inputs: int, outputs: int = 256) -> nn.Sequential:
    """SAM's neck: 1×1 and 3×3 convolution without bias, each with a layer norm over channels."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, bias=False),
        LayerNorm2d(outputs, eps=1e-6),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        LayerNorm2d(outputs, eps=1e-6),
    )


class FrozenEncoder(FrameEncoder):
    """An image encoder that is never trained: no gradients, always in evaluation mode, not in checkpoints.

    Weights that came from a file are left out of checkpoints, for that file holds them; random ones (no file there) are
    kept, for a network trained with them works with no others.

    Args:
        checkpoint: name of released weights (``'mobile_sam'``, see ``ffplug weights list``), or file of SAM, MobileSAM
            or SAMFlow that holds the encoder, or None for random weights.
        missing_checkpoint: ``'error'``, or ``'warn'`` to go on with random weights where the file is not there.
        dtype: ``'bfloat16'`` or ``'float16'`` runs the encoder under autocast; None in the precision of its input.
        feature_cache: folder that keeps the features of every frame seen, as float16, so that a frame is encoded once.
            For data without augmentation, whose frames come back the same. None keeps nothing.
        init_cfg: see MMEngine's ``BaseModule``.
    """

    out_channels = 256
    stride = 16
    size_multiple = 16

    def __init__(
        self,
        checkpoint: str | None = None,
        missing_checkpoint: str = "error",
        dtype: str | None = None,
        feature_cache: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if missing_checkpoint not in ("error", "warn"):
            raise ConfigError(f"missing_checkpoint={missing_checkpoint!r}: expected 'error' or 'warn'")
        if dtype not in (None, "bfloat16", "float16"):
            raise ConfigError(f"dtype={dtype!r}: expected None, 'bfloat16' or 'float16'")
        self.checkpoint = checkpoint
        self.missing_checkpoint = missing_checkpoint
        self.dtype = getattr(torch, dtype) if dtype else None
        self.feature_cache = Path(feature_cache).expanduser() if feature_cache else None
        self.from_file = False
        self._identity: str | None = None
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    def encode(self, image: Tensor) -> Tensor:
        """Normalised image N×3×H×W -> N×256×H/16×W/16."""
        raise NotImplementedError

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Keys of the public encoder, without prefix, to those of this module."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Load the checkpoint and stop all gradients; a subclass calls this once it is built."""
        self.requires_grad_(False)
        self.eval()
        if self.checkpoint is None:
            return
        path, released = locate(self.checkpoint)
        if not path.is_file():
            how = f": run `ffplug weights pull {released.name}`" if released else ""
            message = f"{type(self).__name__}: weights {path} are not there{how}"
            if self.missing_checkpoint == "error":
                raise CheckpointError(message + ", or pass missing_checkpoint='warn' to go on with random ones")
            print_log(message + ". Going on with random frozen weights.", logger="current", level=logging.WARNING)
            return
        self.load(find_file(self.checkpoint)[0])

    def load(self, path: str | os.PathLike) -> None:
        """Load the encoder from a file of SAM, MobileSAM or SAMFlow, strictly.

        Raises:
            CheckpointError: unreadable or unsafe file, or no such encoder in it.
        """
        try:
            state = self.convert(read_state_dict(path))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        self.load_state_dict(state, strict=False)
        self.from_file = True

    def convert(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the encoder out of the tensors of SAM, MobileSAM or SAMFlow, under the keys of this module.

        Raises:
            CheckpointError: tensors of the encoder are missing, unexpected or of another shape.
        """
        state = dict(state_dict)
        for prefix in PREFIXES:
            inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if inner:
                state = inner
                break
        renamed = self.rename(state)
        expected = self.state_dict()
        missing = [key for key in expected if key not in renamed and not key.endswith("num_batches_tracked")]
        unexpected = [key for key in renamed if key not in expected]
        shaped = [key for key in renamed if key in expected and renamed[key].shape != expected[key].shape]
        if missing or unexpected or shaped:
            raise CheckpointError(
                f"not the weights of this {type(self).__name__}: {len(missing)} keys missing {missing[:3]}, "
                f"{len(unexpected)} unexpected {unexpected[:3]}, {len(shaped)} of another shape {shaped[:3]}"
            )
        return renamed

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        if any(key.startswith(prefix) for key in state_dict):
            self.from_file = False  # they may be others than the file's, so checkpoints have to hold them
            self._identity = None
        super()._load_from_state_dict(state_dict, prefix, *args)

    def checkpoint_exclude_prefixes(self) -> tuple[str, ...]:
        """All of it where the weights came from a file."""
        return ("",) if self.from_file else ()

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """N×3×H×W, RGB in 0..255 -> N×256×H/16×W/16, without gradients."""
        if self.feature_cache is None:
            return self._run(image)
        names = [self._name(frame) for frame in image]
        features = [self._cached(name) for name in names]
        absent = [index for index, feature in enumerate(features) if feature is None]
        if absent:
            for index, feature in zip(absent, self._run(image[absent]), strict=True):
                features[index] = feature.half().cpu().numpy()
                self._keep(names[index], features[index])
        return torch.stack([torch.from_numpy(feature).to(image) for feature in features])

    def _run(self, image: Tensor) -> Tensor:
        normalised = (image - self.pixel_mean) / self.pixel_std
        with torch.autocast(image.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return self.encode(normalised).to(image.dtype)

    def _name(self, frame: Tensor) -> str:
        if self._identity is None:
            digest = hashlib.blake2b(digest_size=8)
            for key, value in self.state_dict().items():
                digest.update(f"{key}{float(value.double().sum())!r}{float(value.double().abs().sum())!r}".encode())
            self._identity = digest.hexdigest()
        content = hashlib.blake2b(frame.cpu().numpy().tobytes(), digest_size=16)
        return f"{self._identity}/{content.hexdigest()}-{frame.shape[1]}x{frame.shape[2]}.npy"

    def _cached(self, name: str) -> np.ndarray | None:
        try:
            return np.load(self.feature_cache / name)
        except (FileNotFoundError, ValueError, EOFError):
            return None  # never seen, or cut off while it was written by an older system: encode it again

    def _keep(self, name: str, feature: np.ndarray) -> None:
        path = self.feature_cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npy")
        with os.fdopen(handle, "wb") as file:
            np.save(file, feature)
        os.replace(temporary, path)


def pad_to_windows(x: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """Pad N×H×W×C with zeros at right and bottom to multiples of ``window``; also the padded height and width."""
    height, width = x.shape[1:3]
    rows, columns = -height % window, -width % window
    return F.pad(x, (0, 0, 0, columns, 0, rows)), (height + rows, width + columns)
