"""Error against cost: every policy measured in the same way, on the same pairs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ffplug.models.parts import Policy
from ffplug_iterpolicy.costs import StepCosts
from ffplug_iterpolicy.models import ContextIterationPolicy, FixedSteps, RandomSkipping, UpdateThreshold

Pair = Mapping[str, Any]
"""An item of a flow data set: ``inputs`` 2×3×H×W and ``data_samples`` with ``gt_flow`` and ``gt_valid``."""


@dataclasses.dataclass(frozen=True)
class Point:
    """What a policy at one setting gave.

    Attributes:
        policy: kind of policy.
        setting: its setting (preference, steps, share, threshold, price), or None.
        epe: mean over the pairs of the mean end-point error over valid pixels.
        steps: mean number of iterations that ran.
        gflops: floating-point operations for a pair, in 10⁹, 2 for each multiply-accumulate.
        milliseconds: for a pair, or None where time was not taken.
    """

    policy: str
    setting: float | None
    epe: float
    steps: float
    gflops: float
    milliseconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a policy did with each pair.

    Attributes:
        errors: end-point error of each pair, N.
        steps: iterations that ran, N.
    """

    errors: Tensor
    steps: Tensor


def batches(pairs: Sequence[Pair], size: int) -> Iterable[tuple[Tensor, Tensor, list[Any]]]:
    """Frames N×3×H×W of both times, and the samples, of ``size`` pairs at a time; all pairs are of one size."""
    for start in range(0, len(pairs), size):
        part = pairs[start : start + size]
        frames = torch.stack([pair["inputs"] for pair in part]).float()
        yield frames[:, 0], frames[:, 1], [pair["data_samples"] for pair in part]


def pair_errors(flow: Tensor, samples: Sequence[Any]) -> Tensor:
    """Mean end-point error over the valid pixels of each sample, N, for flow N×2×H×W."""
    truth = torch.stack([sample.gt_flow for sample in samples]).to(flow)
    valid = torch.stack([sample.gt_valid for sample in samples]).to(flow) >= 0.5
    error = torch.where(valid, (flow - torch.where(valid[:, None], truth, 0)).norm(dim=1), 0)
    return error.sum(dim=(1, 2)) / valid.sum(dim=(1, 2)).clamp(min=1)


def run_policy(
    model: nn.Module,
    policy: Policy | None,
    pairs: Sequence[Pair],
    iterations: int,
    batch_size: int = 8,
    inputs: Mapping[str, Tensor] | None = None,
) -> Outcome:
    """Run a model under a policy.

    Args:
        model: a recurrent flow estimator; its own policy is put back afterwards.
        policy: what decides, or None for all iterations.
        pairs: with the true flow, all of one size.
        iterations: number of iterations to choose from.
        batch_size: pairs at a time.
        inputs: further inputs of all pairs by name, N×... (``steps``, ``preference``).
    """
    errors, steps = [], []
    device = next(model.parameters()).device
    with _under(model, policy):
        done = 0
        for first, second, samples in batches(pairs, batch_size):
            part = {name: value[done : done + len(samples)].to(device) for name, value in (inputs or {}).items()}
            result = model.predict_flow(first.to(device), second.to(device), iterations, inputs=part)
            errors.append(pair_errors(result["flow"], samples).cpu())
            ran = result.get("steps")
            steps.append(torch.full((len(samples),), float(iterations)) if ran is None else ran.cpu())
            done += len(samples)
    return Outcome(torch.cat(errors), torch.cat(steps))


def errors_by_step(model: nn.Module, pairs: Sequence[Pair], iterations: int, batch_size: int = 8) -> Tensor:
    """End-point error of each pair after each iteration, all of which run: N×iterations.

    Pairs must be of a size that the network takes without padding.
    """
    device = next(model.parameters()).device
    rows = []
    with _under(model, None), torch.no_grad():
        for first, second, samples in batches(pairs, batch_size):
            flows = model.eval().run(first.to(device), second.to(device), iterations, every=True)["flows"]
            rows.append(torch.stack([pair_errors(flow, samples) for flow in flows], dim=1).cpu())
    return torch.cat(rows)


def oracle_steps(errors: Tensor, price: float) -> Tensor:
    """How many iterations each pair would best run if its errors (N×iterations) were known, at ``price`` px each."""
    return (errors + price * torch.arange(errors.shape[1])).argmin(dim=1) + 1


def time_policy(
    model: nn.Module,
    policy: Policy | None,
    pairs: Sequence[Pair],
    iterations: int,
    batch_size: int,
    inputs: Mapping[str, Tensor] | None = None,
    repeat: int = 3,
    clock: Callable[[], float] | None = None,
) -> float:
    """Milliseconds for a pair: the least of ``repeat`` passes over the pairs, after one to warm up.

    ``clock`` gives seconds: ``time.process_time`` leaves out what else the machine does; the default is the wall clock.
    """
    clock = clock or time.perf_counter
    least = float("inf")
    for attempt in range(repeat + 1):
        start = clock()
        run_policy(model, policy, pairs, iterations, batch_size, inputs)
        if attempt:
            least = min(least, clock() - start)
    return 1000 * least / len(pairs)


def pareto(
    model: nn.Module,
    pairs: Sequence[Pair],
    iterations: int,
    costs: StepCosts,
    preferences: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2),
    thresholds: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8),
    timed: bool = False,
    batch_size: int = 1,
) -> list[Point]:
    """Measure a model's own policy, fixed steps, threshold, random skipping and the oracle.

    Args:
        model: with a :class:`ffplug_iterpolicy.models.ContextIterationPolicy`, or without any for the others alone.
        pairs: with the true flow, all of one size that needs no padding.
        iterations: number of iterations to choose from.
        costs: of this model and frame size.
        preferences: of the learned policy.
        thresholds: of the rule on the update, in pixels.
        timed: take the time, too.
        batch_size: pairs at a time.
    """
    errors = errors_by_step(model, pairs, iterations, batch_size)
    spread = float(errors[:, 0].mean() - errors[:, -1].mean())
    runs: list[tuple[str, float | None, Policy | None, dict[str, Tensor]]] = []
    learned = getattr(model.decoder, "policy", None)
    if isinstance(learned, ContextIterationPolicy):
        runs += [("learned", r, learned, {"preference": torch.full((len(pairs),), float(r))}) for r in preferences]
    runs += [("fixed", float(n), FixedSteps(n), {}) for n in _numbers(iterations)]
    runs += [("threshold", t, UpdateThreshold(t), {}) for t in thresholds]
    runs += [("random", share, RandomSkipping(share), {}) for share in (0.1, 0.25, 0.5, 0.75)]
    for price in (spread * factor for factor in (0.003, 0.01, 0.03, 0.1)):
        runs.append(("oracle", price, FixedSteps(), {"steps": oracle_steps(errors, price).float()}))
    points = []
    for kind, setting, policy, inputs in runs:
        outcome = run_policy(model, policy, pairs, iterations, batch_size, inputs)
        elapsed = time_policy(model, policy, pairs, iterations, batch_size, inputs) if timed else None
        steps = float(outcome.steps.mean())
        gflops = costs.gflops(steps, iterations if kind == "learned" else None)
        points.append(Point(kind, setting, float(outcome.errors.mean()), steps, gflops, elapsed))
    return points


def table(points: Sequence[Point]) -> str:
    """A Markdown table of points."""
    lines = ["| policy | setting | EPE, px | iterations | GFLOPs | ms |", "| --- | --- | --- | --- | --- | --- |"]
    for point in points:
        setting = "" if point.setting is None else f"{point.setting:.3g}"
        elapsed = "" if point.milliseconds is None else f"{point.milliseconds:.1f}"
        lines.append(
            f"| {point.policy} | {setting} | {point.epe:.4f} | {point.steps:.2f} | {point.gflops:.4f} | {elapsed} |"
        )
    return "\n".join(lines) + "\n"


STYLES = {
    "learned": ("#c0392b", "o", "-"),
    "fixed": ("#2c3e50", "s", "-"),
    "threshold": ("#2980b9", "^", "-"),
    "random": ("#7f8c8d", "x", ":"),
    "oracle": ("#27ae60", "D", "--"),
}


def draw(points: Sequence[Point], path: Path, title: str) -> None:
    """Draw EPE against GFLOPs, and against milliseconds where they were taken."""
    from matplotlib.figure import Figure

    axes_of = {"gflops": "GFLOPs for a pair"}
    if all(point.milliseconds is not None for point in points):
        axes_of["milliseconds"] = "ms for a pair"
    figure = Figure(figsize=(5.2 * len(axes_of), 3.8), layout="constrained")
    for axis, (key, label) in zip(figure.subplots(1, len(axes_of), squeeze=False)[0], axes_of.items(), strict=True):
        for kind, (color, marker, line) in STYLES.items():
            chosen = sorted((p for p in points if p.policy == kind), key=lambda p: getattr(p, key))
            if chosen:
                x, y = [getattr(p, key) for p in chosen], [p.epe for p in chosen]
                axis.plot(x, y, line, color=color, marker=marker, markersize=5, label=kind)
        axis.set_xlabel(label)
        axis.set_ylabel("EPE, px")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def _numbers(iterations: int) -> list[int]:
    """Some numbers of iterations, all of them where they are few."""
    chosen = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, iterations}
    return sorted(number for number in chosen if number <= iterations)


class _under:
    """A context in which a model runs under a policy."""

    def __init__(self, model: nn.Module, policy: Policy | None) -> None:
        self.decoder, self.policy = model.decoder, policy

    def __enter__(self) -> None:
        self.own, self.decoder.policy = self.decoder.policy, self.policy
        if self.policy is not None:
            self.policy.eval()

    def __exit__(self, *error: object) -> None:
        self.decoder.policy = self.own
