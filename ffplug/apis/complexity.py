"""What a model costs: parameters, FLOPs, time and memory, of what really runs."""

from __future__ import annotations

import dataclasses
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ffplug.errors import ConfigError
from ffplug.ops import use_backend


@dataclasses.dataclass(frozen=True)
class Complexity:
    """Counts for one frame pair.

    Attributes:
        parameters: numbers in all parameters.
        trainable: those of them that train.
        parts: parameters of each direct part.
        flops: floating-point operations (2 per multiply-accumulate) of matrix products and convolutions that ran.
        flops_by_part: the same by part, for parts that ran.
    """

    parameters: int
    trainable: int
    parts: dict[str, int]
    flops: int
    flops_by_part: dict[str, int]


def frames_of(model: nn.Module, height: int, width: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Two batches of random frames of a size, the same every time, on the model's device."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, batch, 3, height, width, generator=generator) * 255
    return tuple(frames.to(next(model.parameters()).device))


def complexity(model: nn.Module, height: int, width: int, iterations: int | None = None) -> Complexity:
    """Count the parameters and FLOPs of a flow model.

    The network runs once, on the ops' PyTorch references, and what ran is counted, so work that a network skips is not
    in the figure; what a faster algorithm saves (Winograd's convolution) is.

    Args:
        model: a flow model with ``predict_flow``.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        iterations: of a recurrent model, or None for its own number.
    """
    _check(model)
    counter = FlopCounterMode(display=False)
    first, second = frames_of(model, height, width)
    with counter, torch.no_grad(), use_backend("torch"):
        model.predict_flow(first, second, iterations=iterations)
    name = type(model).__name__
    by_part = {
        key.removeprefix(f"{name}."): sum(operations.values())
        for key, operations in counter.get_flop_counts().items()
        if key.startswith(f"{name}.") and key.count(".") <= 2
    }
    return Complexity(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        parts={key: sum(p.numel() for p in part.parameters()) for key, part in model.named_children()},
        flops=counter.get_total_flops(),
        flops_by_part=dict(sorted(by_part.items())),
    )


@dataclasses.dataclass(frozen=True)
class Timing:
    """Time and memory of a model on one frame pair or batch.

    Attributes:
        seconds: of each run.
        peak_memory: bytes: the most that the GPU held, or the process's largest resident size on a CPU.
        device: where it ran.
    """

    seconds: tuple[float, ...]
    peak_memory: int
    device: str

    @property
    def median(self) -> float:
        """Median of the runs, in seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of the runs, in seconds."""
        if len(self.seconds) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


def measure(
    model: nn.Module,
    height: int,
    width: int,
    iterations: int | None = None,
    repeat: int = 5,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
    compile_model: bool = False,
) -> Timing:
    """Time a flow model, after one run to warm up.

    Args:
        model: a flow model with ``predict_flow``, on the device to measure.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        iterations: of a recurrent model, or None for its own number.
        repeat: number of timed runs, at least 1.
        batch: pairs in each run.
        dtype: other than float32 runs under autocast.
        compile_model: run through ``torch.compile``.

    Raises:
        ConfigError: an argument out of range, or a model that gives no flow.
    """
    _check(model)
    if repeat < 1 or batch < 1:
        raise ConfigError(f"repeat={repeat}, batch={batch}: expected 1 or more")
    first, second = frames_of(model, height, width, batch)
    device = first.device
    predict: Callable[..., Any] = torch.compile(model.predict_flow) if compile_model else model.predict_flow
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        for run in range(repeat + 1):
            start = time.perf_counter()
            predict(first, second, iterations=iterations)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if run:
                seconds.append(time.perf_counter() - start)
    return Timing(tuple(seconds), _peak_memory(device), str(device))


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _check(model: nn.Module) -> None:
    if not hasattr(model, "predict_flow"):
        raise ConfigError(f"{type(model).__name__} has no predict_flow: it is no optical-flow model")
