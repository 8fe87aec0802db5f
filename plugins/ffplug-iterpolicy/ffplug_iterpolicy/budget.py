"""Choosing the resource preference that meets a budget, and keeping it with the weights."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import safetensors
import torch
from torch import nn

from ffplug.apis.checkpoints import read_state_dict, save_weights
from ffplug.errors import ConfigError
from ffplug_iterpolicy.costs import StepCosts
from ffplug_iterpolicy.curves import Pair, run_policy, time_policy
from ffplug_iterpolicy.models import ContextIterationPolicy

RANGE = (0.02, 1.3)
"""Preferences that are tried; training draws them from 0.2 to 1, and operating points of the paper reach 1.1."""

METADATA = "iteration_policy"
"""Key of the calibration in the metadata of a weights file."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A preference and the cost that it has.

    Attributes:
        preference: r.
        target: what was asked for, for a frame pair.
        unit: ``gflops`` or ``ms``.
        value: what it is at r, on the pairs of the calibration.
        steps: mean number of iterations that run at r.
        iterations: number of iterations to choose from.
        epe: mean end-point error at r, in pixels.
        size: (height, width) of the frames.
        pairs: how many.
        device: where time was taken.
    """

    preference: float
    target: float
    unit: str
    value: float
    steps: float
    iterations: int
    epe: float
    size: tuple[int, int]
    pairs: int
    device: str


def learned_policy(model: nn.Module) -> ContextIterationPolicy:
    """The policy of a model's main decoder.

    Raises:
        ConfigError: it has none that was learned.
    """
    policy = getattr(getattr(model, "decoder", None), "policy", None)
    if not isinstance(policy, ContextIterationPolicy):
        raise ConfigError(
            "this model has no learned iteration policy: take a config with "
            "policy=dict(type='ffplug_iterpolicy.ContextIterationPolicy'), as raft_large_iterpolicy"
        )
    return policy


def calibrate(
    model: nn.Module,
    pairs: Sequence[Pair],
    target: float,
    unit: str,
    iterations: int,
    costs: StepCosts,
    batch_size: int = 1,
    tries: int = 10,
) -> Calibration:
    """Find the preference at which a frame pair costs the target on average, by bisection on the iterations that run.

    For milliseconds, time is taken at both ends of the range; between them it grows with the number of iterations.

    Args:
        model: with a learned policy; it keeps the preference that is found.
        pairs: with the true flow, all of one size, like those that the budget is for.
        target: of the cost of a pair.
        unit: ``gflops`` or ``ms``.
        iterations: number of iterations to choose from.
        costs: of this model and frame size.
        batch_size: pairs at a time.
        tries: number of bisections.

    Raises:
        ConfigError: an unknown unit, no learned policy, or a target that no preference reaches; the message has the
            range that is reachable.
    """
    if unit not in ("gflops", "ms"):
        raise ConfigError(f"unit={unit!r}: expected 'gflops' or 'ms'")
    policy = learned_policy(model)

    def steps_at(preference: float) -> tuple[float, float]:
        wanted = {"preference": torch.full((len(pairs),), preference)}
        outcome = run_policy(model, policy, pairs, iterations, batch_size, wanted)
        return float(outcome.steps.mean()), float(outcome.errors.mean())

    def cost_at(preference: float, steps: float) -> float:
        if unit == "gflops":
            return costs.gflops(steps, iterations)
        wanted = {"preference": torch.full((len(pairs),), preference)}
        return time_policy(model, policy, pairs, iterations, batch_size, wanted)

    low, high = RANGE
    few, many = steps_at(low)[0], steps_at(high)[0]
    least, most = cost_at(low, few), cost_at(high, many)
    if not least <= target <= most:
        raise ConfigError(
            f"{target:g} {unit} for a pair of frames is out of reach: on these {len(pairs)} pairs preferences of "
            f"{low:g} to {high:g} give {least:.4g} to {most:.4g} {unit} ({few:.1f} to {many:.1f} of {iterations} "
            "iterations). Ask for a value between, another number of iterations, or a smaller network"
        )
    wanted = few if math.isclose(least, most) else few + (target - least) / (most - least) * (many - few)
    best = (math.inf, high, many)
    for _ in range(tries):
        middle = (low + high) / 2
        found = steps_at(middle)[0]
        if abs(found - wanted) < best[0]:
            best = (abs(found - wanted), middle, found)
        low, high = (middle, high) if found < wanted else (low, middle)
    _, preference, steps = best
    with torch.no_grad():
        policy.calibrated.fill_(preference)
    policy.preference = None
    size = tuple(pairs[0]["inputs"].shape[-2:])
    device = str(policy.calibrated.device)
    value, epe = cost_at(preference, steps), steps_at(preference)[1]
    return Calibration(preference, target, unit, value, steps, iterations, epe, size, len(pairs), device)


def save_calibrated(
    weights: str | os.PathLike, model: nn.Module, calibration: Calibration, out: str | os.PathLike
) -> Path:
    """Write a model's weights with its calibrated preference, and how it was found in the file's metadata.

    Args:
        weights: the file that the weights came from; its metadata are kept.
        model: the calibrated model.
        calibration: goes into the metadata as ``iteration_policy``.
        out: the file to write, ``.safetensors``.
    """
    metadata = read_metadata(weights) | {METADATA: json.dumps(dataclasses.asdict(calibration))}
    state = model.state_dict()
    if Path(weights).suffix == ".safetensors":
        state = {key: value for key, value in state.items() if key in read_state_dict(weights)}
    return save_weights(out, state, metadata)


def read_metadata(weights: str | os.PathLike) -> dict[str, str]:
    """Metadata of a ``.safetensors`` file; none of other files."""
    if Path(weights).suffix != ".safetensors":
        return {}
    with safetensors.safe_open(weights, "pt") as file:
        return dict(file.metadata() or {})


def read_calibration(weights: str | os.PathLike) -> Calibration | None:
    """The calibration in the metadata of a weights file, or None."""
    found = read_metadata(weights).get(METADATA)
    if found is None:
        return None
    values = json.loads(found)
    return Calibration(**{**values, "size": tuple(values["size"])})
