"""What the benchmarks share: timing in turns, and the ceilings of the machine they are held against."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ffplug.ops.contract import Op


@dataclass(frozen=True)
class BenchCase:
    """One op at one size.

    Attributes:
        op: the op.
        label: the size, as the table shows it.
        make: makes the call's arguments from a :class:`ffplug.testing.ops.Maker`.
        bytes: the least memory traffic: each input read once, each output written once.
        flops: additions and multiplications.
        rival: name and function of what users run today, called with the same arguments.
        backward: time the gradient of all differentiable arguments (with the forward) in place of the forward alone.
        reference: whether the PyTorch reference is run at this size (it may need more memory than there is).
    """

    op: Op
    label: str
    make: Callable[[Any], tuple[Any, ...]]
    bytes: float
    flops: float
    rival: tuple[str, Callable[..., Any]] | None = None
    backward: bool = False
    reference: bool = True


def synchronize(device: str) -> None:
    """Wait for the device's queue."""
    if device == "cuda":
        torch.cuda.synchronize()


def once(function: Callable[[], Any], device: str) -> float:
    """Seconds of one call."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def in_turns(
    functions: Sequence[Callable[[], Any]], device: str = "cpu", rounds: int = 5, budget: float = 10.0
) -> list[float]:
    """Shortest time of each function; every round runs each once, so that a busy machine slows all alike.

    Args:
        functions: what to time; each runs once before, unmeasured.
        device: ``cpu`` or ``cuda``.
        rounds: at most so many rounds.
        budget: seconds after which no further round begins.
    """
    for function in functions:
        function()
    best = [float("inf")] * len(functions)
    start = time.perf_counter()
    for _ in range(rounds):
        best = [min(old, once(function, device)) for old, function in zip(best, functions, strict=True)]
        if time.perf_counter() - start > budget:
            break
    return best


def ceilings(device: str) -> tuple[float, float]:
    """Bytes per second of a large copy (read and write counted), and operations per second of a large product."""
    elements = (1 << 28 if device == "cuda" else 1 << 25) // 4
    source, target = (torch.rand(elements, device=device) for _ in range(2))
    size = 8192 if device == "cuda" else 1024
    left, right = (torch.rand(size, size, device=device) for _ in range(2))
    channels, side = 256, 64
    image = torch.rand(1, channels, side, side, device=device).contiguous(memory_format=torch.channels_last)
    weight = torch.rand(channels, channels, 3, 3, device=device).contiguous(memory_format=torch.channels_last)
    convolution = 2 * channels * channels * 9 * side * side
    with torch.inference_mode():
        copy, product, conv = in_turns(
            [
                lambda: target.copy_(source),
                lambda: left @ right,
                lambda: torch.nn.functional.conv2d(image, weight, padding=1),
            ],
            device,
        )
    return 8 * elements / copy, max(2 * size**3 / product, convolution / conv)
