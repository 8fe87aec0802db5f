"""Policies without training: what the learned one is measured against."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ffplug.errors import ConfigError
from ffplug.models.parts import DecoderState, Encoded
from ffplug_iterpolicy.models.skipping import PolicyMemory, SkippingPolicy
from ffplug_iterpolicy.registry import MODELS


class _Rule(SkippingPolicy):
    """A policy whose decision after an iteration does not depend on whether the samples ran it."""

    def decide(self, memory: PolicyMemory, index: int) -> Tensor:
        """Share of iteration ``index + 1``, N."""
        raise NotImplementedError

    def after_run(
        self, memory: PolicyMemory, before: Tensor, state: DecoderState, index: int, iterations: int
    ) -> PolicyMemory:
        """See :class:`ffplug_iterpolicy.models.SkippingPolicy`."""
        return dataclasses.replace(memory, keep=self.decide(memory, index))

    def after_rest(self, memory: PolicyMemory, state: DecoderState, index: int, iterations: int) -> PolicyMemory:
        """See :class:`ffplug_iterpolicy.models.SkippingPolicy`."""
        return dataclasses.replace(memory, keep=self.decide(memory, index))


@MODELS.register_module()
class FixedSteps(_Rule):
    """Runs the first iterations and no more, all samples alike or each as many as its further input ``steps`` says.

    With steps that were chosen by the true flow it is the oracle (:func:`ffplug_iterpolicy.curves.oracle_steps`).

    Args:
        steps: how many iterations, at least 1, or None for all; the input ``steps``, N, goes before.
        mode: see :class:`ffplug_iterpolicy.models.SkippingPolicy`.
        init_cfg: see MMEngine's ``BaseModule``.

    Raises:
        ConfigError: ``steps`` below 1, or an unknown mode.

    Example:
        dict(type="ffplug_iterpolicy.FixedSteps", steps=6)
    """

    def __init__(self, steps: int | None = None, mode: str = "compact", init_cfg: dict | None = None) -> None:
        super().__init__(mode, init_cfg)
        if steps is not None and steps < 1:
            raise ConfigError(f"policy.steps={steps}: expected 1 or more, or None for all")
        self.steps = steps

    def start(self, encoded: Encoded, state: DecoderState, iterations: int) -> dict[str, Tensor]:
        """How many iterations each sample runs."""
        count = state.flow.shape[0]
        steps = encoded.inputs.get("steps")
        if steps is None:
            steps = state.flow.new_full((count,), iterations if self.steps is None else self.steps)
        return {"planned": steps.to(state.flow).reshape(count)}

    def decide(self, memory: PolicyMemory, index: int) -> Tensor:
        """See the class."""
        return (index + 1 < memory.details["planned"]).to(memory.keep)


@MODELS.register_module()
class RandomSkipping(_Rule):
    """Runs each iteration after the first by chance, the same ones for the same seed and batch size.

    Args:
        share: probability of each, 0 to 1.
        seed: of the draws.
        mode: see :class:`ffplug_iterpolicy.models.SkippingPolicy`.
        init_cfg: see MMEngine's ``BaseModule``.

    Raises:
        ConfigError: ``share`` out of its range, or an unknown mode.

    Example:
        dict(type="ffplug_iterpolicy.RandomSkipping", share=0.5)
    """

    def __init__(self, share: float = 0.5, seed: int = 0, mode: str = "compact", init_cfg: dict | None = None) -> None:
        super().__init__(mode, init_cfg)
        if not 0 <= share <= 1:
            raise ConfigError(f"policy.share={share}: expected a probability, 0 to 1")
        self.share = share
        self.seed = seed

    def start(self, encoded: Encoded, state: DecoderState, iterations: int) -> dict[str, Tensor]:
        """The decisions of all samples and iterations."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.rand(state.flow.shape[0], iterations, generator=generator) < self.share
        return {"drawn": drawn.to(state.flow)}

    def decide(self, memory: PolicyMemory, index: int) -> Tensor:
        """See the class."""
        drawn = memory.details["drawn"]
        return drawn[:, min(index + 1, drawn.shape[1] - 1)]


@MODELS.register_module()
class UpdateThreshold(SkippingPolicy):
    """Stops a sample for good once an iteration moved its flow by less than a threshold: no training at all.

    Args:
        threshold: mean length of the iteration's residual flow, in pixels of the frame.
        stride: pixels in a cell of the working grid.
        mode: see :class:`ffplug_iterpolicy.models.SkippingPolicy`.
        init_cfg: see MMEngine's ``BaseModule``.

    Raises:
        ConfigError: a negative threshold, or an unknown mode.

    Example:
        dict(type="ffplug_iterpolicy.UpdateThreshold", threshold=0.1)
    """

    def __init__(
        self, threshold: float = 0.1, stride: int = 8, mode: str = "compact", init_cfg: dict | None = None
    ) -> None:
        super().__init__(mode, init_cfg)
        if threshold < 0:
            raise ConfigError(f"policy.threshold={threshold}: expected pixels, 0 or more")
        self.threshold = threshold
        self.stride = stride

    def after_run(
        self, memory: PolicyMemory, before: Tensor, state: DecoderState, index: int, iterations: int
    ) -> PolicyMemory:
        """See :class:`ffplug_iterpolicy.models.SkippingPolicy`."""
        moved = self.stride * (state.flow.detach() - before).norm(dim=1).mean(dim=(1, 2))
        going_on = (moved >= self.threshold) & (memory.ran > 0)
        return dataclasses.replace(memory, keep=going_on.to(memory.keep))

    def after_rest(self, memory: PolicyMemory, state: DecoderState, index: int, iterations: int) -> PolicyMemory:
        """See :class:`ffplug_iterpolicy.models.SkippingPolicy`."""
        return memory
