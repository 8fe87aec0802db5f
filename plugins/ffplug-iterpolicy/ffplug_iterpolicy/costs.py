"""What an iteration costs: operations that run, and the figures in the paper's way of counting."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ffplug.apis.complexity import frames_of
from ffplug.errors import ConfigError
from ffplug.models.parts import Policy
from ffplug.ops import use_backend
from ffplug_iterpolicy.models import ContextIterationPolicy, FixedSteps


@dataclasses.dataclass(frozen=True)
class StepCosts:
    """Operations for one frame pair, 2 for each multiply-accumulate.

    Attributes:
        fixed: what runs once: encoders, cost volume, attention, upsampling.
        step: one iteration: look-up, update, flow head; and aggregation by attention where there is one.
        decide: the policy after an iteration that ran.
        rest: the policy after one that was left out.
    """

    fixed: float
    step: float
    decide: float = 0.0
    rest: float = 0.0

    def flops(self, steps: float, iterations: int | None = None) -> float:
        """Operations when ``steps`` iterations ran.

        Args:
            steps: how many ran, a mean over pairs perhaps.
            iterations: how many there were for the learned policy to choose from; None leaves the policy out. That of
                the last iteration does not run, so this is exact to within one run of the policy.
        """
        total = self.fixed + steps * self.step
        if iterations is not None:
            decided = min(steps, iterations - 1)
            total += decided * self.decide + (iterations - 1 - decided) * self.rest
        return total

    def gflops(self, steps: float, iterations: int | None = None) -> float:
        """As :meth:`flops`, in 10⁹."""
        return self.flops(steps, iterations) / 1e9

    def steps(self, flops: float, iterations: int | None = None) -> float:
        """How many iterations cost ``flops``; see :meth:`flops`."""
        if iterations is None:
            return (flops - self.fixed) / self.step
        return (flops - self.fixed - (iterations - 1) * self.rest) / (self.step + self.decide - self.rest)


def count_flops(model: nn.Module, height: int, width: int, policy: Policy | None, iterations: int) -> int:
    """Operations of the matrix products and convolutions that run for a pair of random frames under a policy."""
    counter = FlopCounterMode(display=False)
    first, second = frames_of(model, height, width)
    own, model.decoder.policy = model.decoder.policy, policy
    try:
        with counter, torch.no_grad(), use_backend("torch"):
            model.predict_flow(first, second, iterations=iterations)
    finally:
        model.decoder.policy = own
    return counter.get_total_flops()


def step_costs(model: nn.Module, height: int, width: int) -> StepCosts:
    """Count what a model's iterations and its learned policy cost, by running it once and twice.

    Convolutions and matrix products are counted as they run: the correlation volume and GMA's attention too, which the
    paper leaves out, and what is computed once for a pair (the context's share of the gates) once. The look-up's
    bilinear sampling, which is no product, is counted in closed form: 4 multiply-accumulates for each number.

    Args:
        model: a recurrent flow estimator.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
    """
    once, twice = (count_flops(model, height, width, FixedSteps(steps), 2) for steps in (1, 2))
    with torch.no_grad():
        first, second = frames_of(model, height, width)
        grid = model.predict_flow(first, second, iterations=1)["flow_low"].shape[-2:]
    positions = grid[0] * grid[1]
    radius = getattr(model.cost, "radius", None)
    looked_up = 0 if radius is None else 8 * positions * getattr(model.cost, "levels", 1) * (2 * radius + 1) ** 2
    costs = StepCosts(2 * once - twice, twice - once + looked_up)
    policy = model.decoder.policy
    if isinstance(policy, ContextIterationPolicy):
        cell = policy.cell
        plane = 2 * 9 * cell.channels * positions
        read = cell.sizes["state"] + cell.sizes["flow"] + cell.sizes["delta"] + cell.channels
        head = 2 * 3 * cell.channels
        # The flow's share is computed twice after an iteration: as it was before, and as it stays if the next rests.
        costs = dataclasses.replace(
            costs, decide=plane * (read + cell.sizes["flow"]) + head, rest=plane * cell.channels + head
        )
    return costs


@dataclasses.dataclass(frozen=True)
class PublishedCosts:
    """The authors' figures for a frame pair: multiply-accumulates, which they call FLOPs, in 10⁹, at ``positions``.

    They count a step's mask head and leave its flow head for the end (the two are swapped), and neither the correlation
    volume, look-ups nor GMA's attention.

    Attributes:
        positions: cells of the working grid, H/8·W/8.
        fixed: encoders, and GMA's queries and keys.
        step: one iteration.
        once: at the end.
        policy: the policy, an iteration.
    """

    positions: int
    fixed: float
    step: float
    once: float
    policy: float

    def gflops(self, height: int, width: int, steps: float, iterations: int) -> float:
        """Their figure for frames of a size (multiples of 8) when ``steps`` of ``iterations`` ran."""
        scale = (height // 8) * (width // 8) / self.positions
        return scale * (self.fixed + self.once + self.step * steps + (iterations - 1) * self.policy)


PUBLISHED = {
    "raft_large": PublishedCosts(7040, 61.345 + 30.802, 19.861, 2.110, 0.168),
    "gma": PublishedCosts(7040, 61.345 + 30.802 + 0.231, 22.427, 3.120, 0.168),
    "flowformer": PublishedCosts(6480, 20.819 + 284.954 + 0.849, 20.752, 2.872, 0.155),
}
"""By base: Sintel's frames of 440×1024 for RAFT and GMA, a tile of 432×960 for FlowFormer."""


def published_gflops(base: str, height: int, width: int, steps: float, iterations: int) -> float:
    """The paper's figure; see :class:`PublishedCosts`.

    Raises:
        ConfigError: the paper has no figures for this base.
    """
    if base not in PUBLISHED:
        raise ConfigError(f"the paper counts no operations of {base!r}: expected one of {', '.join(PUBLISHED)}")
    return PUBLISHED[base].gflops(height, width, steps, iterations)
