"""Frames between two frames at given times: by a model, by optical flow, or by plain mixing."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.apis.inferencer import find_model
from ffplug.errors import ConfigError, DataError
from ffplug.models.layers import Forms, fixed_weights
from ffplug.models.tiling import blending_weights, tile_starts
from ffplug.ops import backward_warp, forward_splat

WITHOUT_WEIGHTS = {
    "blend": "mixes the two frames: what moves is seen twice",
    "dis": "warps them along DIS optical flow (Kroeger et al., ECCV 2016), which learns nothing",
}
DEPTH = 3
"""Halvings of time by which a model of the middle frame reaches other times: to the nearest eighth."""


class Interpolator(ABC):
    """Produces frames between two others; one for each way to do it."""

    @abstractmethod
    def __call__(self, frame0: Tensor, frame1: Tensor, times: Sequence[Fraction]) -> list[Tensor]:
        """Produce frames.

        Args:
            frame0: 1×3×H×W RGB in 0..1.
            frame1: the second, likewise.
            times: where between them, each above 0 and below 1.

        Returns:
            For each time a frame 1×3×H×W.
        """


class Blend(Interpolator):
    """Mixes the two frames."""

    def __call__(self, frame0: Tensor, frame1: Tensor, times: Sequence[Fraction]) -> list[Tensor]:
        """See the base class."""
        return [torch.lerp(frame0, frame1, float(time)) for time in times]


class ModelInterpolator(Interpolator):
    """A model with ``interpolate(frame0, frame1, timestep)``, as :class:`ffplug_ugsp.models.FrameInterpolator`.

    One that knows only the middle (``any_timestep`` is false) halves the time up to :data:`DEPTH` times.

    Args:
        model: the model, whose weights stay as they are.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.any_timestep = getattr(model, "any_timestep", False)
        self.forms: Forms = {}

    def __call__(self, frame0: Tensor, frame1: Tensor, times: Sequence[Fraction]) -> list[Tensor]:
        """See the base class."""
        with fixed_weights(self.forms):
            if self.any_timestep:
                return [self.model.interpolate(frame0, frame1, float(time)) for time in times]
            known = {Fraction(0): frame0, Fraction(1): frame1}
            return [self._halve(known, Fraction(round(time * 2**DEPTH), 2**DEPTH)) for time in times]

    def _halve(self, known: dict[Fraction, Tensor], time: Fraction) -> Tensor:
        """The frame at a time whose denominator is a power of two, from the middle of its neighbours of half of it."""
        if time not in known:
            step = Fraction(1, time.denominator)
            frames = [self._halve(known, side) for side in (time - step, time + step)]
            known[time] = self.model.interpolate(*frames, 0.5)
        return known[time]


class FlowInterpolator(Interpolator):
    """Throws both frames along their share of the flow between them, by softmax splatting.

    As in softmax splatting (Niklaus and Liu, CVPR 2020), without a network for what is left: of pixels that land on one
    place, that which its flow explains best wins; the two frames are mixed by their nearness in time and by how much
    arrives, and where nothing arrives the mixture of the frames themselves is seen.

    Args:
        flow: gives the flows 1×2×H×W in pixels from the first frame to the second, and back.
        sharpness: how strictly the better explained pixel wins; difference in colour counts times this.
    """

    def __init__(self, flow: Any, sharpness: float = 20.0) -> None:
        self.flow, self.sharpness = flow, sharpness

    def __call__(self, frame0: Tensor, frame1: Tensor, times: Sequence[Fraction]) -> list[Tensor]:
        """See the base class."""
        sides = []
        for frame, other, flow in zip((frame0, frame1), (frame1, frame0), self.flow(frame0, frame1), strict=True):
            unlike = (frame - backward_warp(other, flow, "border")).abs().mean(dim=1, keepdim=True)
            sides.append((frame, flow, -self.sharpness * unlike))
        produced = []
        for time in map(float, times):
            total = share = 1e-3
            total = total * torch.lerp(frame0, frame1, time)
            for (frame, flow, metric), way, nearness in zip(sides, (time, 1 - time), (1 - time, time), strict=True):
                weight = nearness * forward_splat(torch.ones_like(metric), way * flow).clamp(max=1)
                total = total + weight * forward_splat(frame, way * flow, metric, "softmax")
                share = share + weight
            produced.append(total / share)
        return produced


class DisFlow:
    """DIS optical flow of OpenCV; no weights, some 20 frames of 640×360 a second on one core."""

    def __init__(self) -> None:
        self._estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, frame0: Tensor, frame1: Tensor) -> tuple[Tensor, Tensor]:
        """Flows from the first frame to the second, and back."""
        grey = [
            cv2.cvtColor((frame[0].permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8), cv2.COLOR_RGB2GRAY)
            for frame in (frame0, frame1)
        ]
        flows = [self._estimator.calc(*pair, None) for pair in (grey, grey[::-1])]
        return tuple(torch.from_numpy(flow).permute(2, 0, 1)[None].to(frame0) for flow in flows)


class ModelFlow:
    """The flow of a model with ``predict_flow``.

    Args:
        model: the model.
        iterations: of a recurrent one; None for its own number.
    """

    def __init__(self, model: nn.Module, iterations: int | None = None) -> None:
        self.model, self.iterations = model, iterations

    def __call__(self, frame0: Tensor, frame1: Tensor) -> tuple[Tensor, Tensor]:
        """Flows from the first frame to the second, and back, in one batch."""
        one, other = torch.cat([frame0, frame1]) * 255, torch.cat([frame1, frame0]) * 255
        return self.model.predict_flow(one, other, iterations=self.iterations)["flow"].float().chunk(2)


class ScaledFlow:
    """Finds flow in frames of another size, and brings it back to theirs.

    Args:
        flow: finds it, see :class:`FlowInterpolator`.
        scale: factor of the frames' size, above 0 and up to 1.

    Raises:
        ConfigError: the scale is out of its range.
    """

    def __init__(self, flow: Any, scale: float) -> None:
        if not 0 < scale <= 1:
            raise ConfigError(f"--flow-scale {scale}: expected more than 0 and at most 1")
        self.flow, self.scale = flow, scale

    def __call__(self, frame0: Tensor, frame1: Tensor) -> tuple[Tensor, ...]:
        """Flows from the first frame to the second, and back."""
        if self.scale == 1:
            return self.flow(frame0, frame1)
        size = frame0.shape[2:]
        small = [max(1, round(side * self.scale)) for side in size]
        resized = (resize_to(frame, small, antialias=True) for frame in (frame0, frame1))
        factors = [side / found for side, found in zip(size[::-1], small[::-1], strict=True)]
        return tuple(resize_to(f, size) * f.new_tensor(factors).view(1, 2, 1, 1) for f in self.flow(*resized))


def resize_to(x: Tensor, size: Sequence[int], antialias: bool = False) -> Tensor:
    """N×C×H×W brought to a height and width, bilinearly."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False, antialias=antialias)


class Tiled(Interpolator):
    """Runs another interpolator on overlapping tiles of large frames, and blends what they give.

    Motion is found only within a tile, so the overlap must be longer than the motion.

    Args:
        inner: what works on a tile.
        size: height and width of a tile in pixels.
        overlap: pixels that neighbours share at least.

    Raises:
        ConfigError: the overlap is not smaller than a tile.
    """

    def __init__(self, inner: Interpolator, size: tuple[int, int], overlap: int = 128) -> None:
        if not 0 <= overlap < min(size):
            raise ConfigError(f"--overlap {overlap}: expected 0 to {min(size) - 1} pixels in tiles of {size}")
        self.inner, self.size, self.overlap = inner, size, overlap

    def __call__(self, frame0: Tensor, frame1: Tensor, times: Sequence[Fraction]) -> list[Tensor]:
        """See the base class."""
        height, width = frame0.shape[2:]
        tile = (min(self.size[0], height), min(self.size[1], width))
        rows, columns = (
            tile_starts(side, part, min(self.overlap, part - 1))
            for side, part in zip((height, width), tile, strict=True)
        )
        row_share, column_share = (
            blending_weights(side, part, starts, 0.15).to(frame0)
            for side, part, starts in ((height, tile[0], rows), (width, tile[1], columns))
        )
        produced = [torch.zeros_like(frame0) for _ in times]
        for top, down in zip(rows, row_share, strict=True):
            for left, across in zip(columns, column_share, strict=True):
                window = (..., slice(top, top + tile[0]), slice(left, left + tile[1]))
                share = down[top : top + tile[0], None] * across[left : left + tile[1]]
                for whole, part in zip(produced, self.inner(frame0[window], frame1[window], times), strict=True):
                    whole[window] += share * part
        return produced


def run(
    interpolator: Interpolator, frame0: Tensor, frame1: Tensor, times: Sequence[Fraction], dtype: torch.dtype
) -> list[Tensor]:
    """Call an interpolator without gradients, at a precision, and look at what it gives.

    Raises:
        DataError: there is not enough memory, or the result is not finite.
    """
    device = frame0.device
    half = dtype != torch.float32
    try:
        with torch.inference_mode(), torch.autocast(device.type, dtype) if half else contextlib.nullcontext():
            produced = [frame.float() for frame in interpolator(frame0, frame1, times)]
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        size = f"{frame0.shape[2]}×{frame0.shape[3]}"
        raise DataError(f"not enough memory on {device} for frames of {size}: use tiles (--tile 544x960)") from error
    if not all(bool(frame.isfinite().all()) for frame in produced):
        raise DataError("the model gives NaN or infinity; try --dtype float32")
    return produced


def wanted_model() -> str:
    """Say what may be given as a model."""
    without = "; ".join(f"{name}, which {what}" for name, what in WITHOUT_WEIGHTS.items())
    return (
        "give --model and its --checkpoint: one for frame interpolation or for optical flow (`ffplug list --models`), "
        f"or a training's work folder. Two need no weights: --model {without}"
    )


def resolve_model(
    model: str | os.PathLike[str] | None, checkpoint: str | os.PathLike[str] | None, random_weights: bool
) -> tuple[Any, Path | None]:
    """Return what :func:`ffplug.build_model` takes, or one of :data:`WITHOUT_WEIGHTS`, and the file of weights.

    Raises:
        CheckpointError: no weights.
        ConfigError: no model.
    """
    if model is None and checkpoint is None:
        raise ConfigError(f"no model: {wanted_model()}")
    if model in WITHOUT_WEIGHTS:
        if checkpoint is not None:
            raise ConfigError(f"--model {model} takes no checkpoint")
        return model, None
    return find_model(model, checkpoint, random_weights)


def build_interpolator(
    model: str | os.PathLike[str] | None,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    source: str | None = None,
    device: torch.device | str = "cpu",
    random_weights: bool = False,
    tile: tuple[int, int] | None = None,
    overlap: int = 128,
    iterations: int | None = None,
    flow_scale: float = 1.0,
) -> Interpolator:
    """Build what produces frames.

    Args:
        model: ``blend``, ``dis``, or a model's or recipe's name, a config file, or a training's work folder; of a model
            with ``interpolate``, or with ``predict_flow``, along whose flow frames are splatted.
        checkpoint: weights, as for :class:`ffplug.FlowInferencer <ffplug.apis.inferencer.FlowInferencer>`.
        source: name of the converter for a public checkpoint; None finds it.
        device: where it runs.
        random_weights: allow a model without weights, whose frames mean nothing.
        tile: height and width of tiles; None for whole frames.
        overlap: pixels that neighbouring tiles share.
        iterations: of a recurrent flow model.
        flow_scale: find the flow in frames of this share of their size, 0.5 for 4K; frames are produced at their own.

    Raises:
        CheckpointError: no weights, or weights that do not fit.
        ConfigError: no model, one that can do neither, or one that finds flow at the frames' own size only.
    """
    from ffplug.apis.models import build_model, load_weights

    name, weights = resolve_model(model, checkpoint, random_weights)
    if name in WITHOUT_WEIGHTS:
        if model == "blend" and flow_scale != 1:
            raise ConfigError("--flow-scale: --model blend finds no flow")
        found: Interpolator = Blend() if model == "blend" else FlowInterpolator(ScaledFlow(DisFlow(), flow_scale))
    else:
        built = build_model(name)
        if weights is not None:
            load_weights(built, weights, source)
        built = built.to(device).eval()
        if hasattr(built, "interpolate"):
            if flow_scale != 1:
                if not hasattr(built, "find_flow_at"):
                    raise ConfigError(f"--flow-scale: {type(built).__name__} finds flow at the frames' own size only")
                built.find_flow_at(flow_scale)
            found = ModelInterpolator(built)
        elif hasattr(built, "predict_flow"):
            found = FlowInterpolator(ScaledFlow(ModelFlow(built, iterations), flow_scale))
        else:
            raise ConfigError(
                f"{type(built).__name__} can neither interpolate frames nor estimate flow; {wanted_model()}"
            )
    return found if tile is None else Tiled(found, tile, overlap)
