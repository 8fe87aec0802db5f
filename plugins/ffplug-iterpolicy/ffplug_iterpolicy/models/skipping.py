"""Running, mixing or leaving out an iteration for some samples of a batch: what all iteration policies share."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from ffplug.errors import ConfigError, did_you_mean
from ffplug.models.parts import DecoderState, Encoded, Policy, Step

MODES = ("compact", "skip", "mask")

MEMORY = "policy"
"""Key of the policy's :class:`PolicyMemory` in ``DecoderState.memory``."""


@dataclasses.dataclass
class PolicyMemory:
    """What a policy carries from one iteration to the next.

    Attributes:
        keep: share of the next iteration, N: 1 runs it, 0 leaves it out, and training mixes in between.
        ran: that of the iteration just done, N.
        steps: sum of ``ran`` over the iterations so far, N.
        details: what the policy itself remembers, by name, the samples first in every tensor.
        full: hidden state and flow as the iteration just done would have left them had all samples run it; None where
            not all were computed.
        resume: the next iteration that some sample runs, where that is known, else 0.
        active: which samples run it.
    """

    keep: Tensor
    ran: Tensor
    steps: Tensor
    details: dict[str, Tensor]
    full: tuple[Tensor, Tensor] | None = None
    resume: int = 0
    active: tuple[bool, ...] = ()


class SkippingPolicy(Policy):
    """Base of the policies that decide after each iteration who runs the next.

    The first iteration always runs. A sample that leaves one out keeps hidden state and flow.

    Args:
        mode: how iterations are left out. The results are the same. ``compact``: samples that leave one out are no
            part of its work. ``skip``: an iteration is left out if all samples leave it out, else computed for all.
            ``mask``: all are computed for all samples and dropped, which saves nothing and never waits for the device;
            training does this always.
        init_cfg: see MMEngine's ``BaseModule``.

    Raises:
        ConfigError: an unknown mode.
    """

    def __init__(self, mode: str = "compact", init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if mode not in MODES:
            raise ConfigError(f"policy.mode={mode!r}: expected one of {', '.join(MODES)}{did_you_mean(mode, MODES)}")
        self.mode = mode

    def start(self, encoded: Encoded, state: DecoderState, iterations: int) -> dict[str, Tensor]:
        """What to remember before the first iteration: :attr:`PolicyMemory.details`."""
        return {}

    def after_run(
        self, memory: PolicyMemory, before: Tensor, state: DecoderState, index: int, iterations: int
    ) -> PolicyMemory:
        """Decide after iteration ``index``, which the samples ran (all, or in training and ``mask`` by their share).

        Args:
            memory: with ``ran`` and ``steps`` as of this iteration.
            before: low-resolution flow before the iteration, N×2×h×w, without gradient.
            state: the state after it.
            index: of the iteration.
            iterations: number of iterations.

        Returns:
            The memory, with a new ``keep``.
        """
        raise NotImplementedError

    def after_rest(self, memory: PolicyMemory, state: DecoderState, index: int, iterations: int) -> PolicyMemory:
        """Decide after iteration ``index``, which none of the samples ran; see :meth:`after_run`."""
        raise NotImplementedError

    def begin(self, encoded: Encoded, state: DecoderState, iterations: int) -> DecoderState:
        """See :class:`ffplug.models.parts.Policy`."""
        count = state.flow.shape[0]
        one, zero = state.flow.new_ones(count), state.flow.new_zeros(count)
        memory = PolicyMemory(one, zero, zero, self.start(encoded, state, iterations), active=(True,) * count)
        return _remember(state, memory)

    def run(self, step: Step, state: DecoderState, index: int, iterations: int) -> DecoderState:
        """Run iteration ``index`` for the samples that want it."""
        memory: PolicyMemory = state.memory[MEMORY]
        if self.training or self.mode == "mask":
            return self._run_masked(step, state, index, iterations)
        if index < memory.resume:
            return state
        if all(memory.active):
            state = self._run_whole(step, state, index, iterations)
        elif self.mode == "compact":
            state = self._run_compact(step, state, index, iterations)
        else:
            state = self._run_masked(step, state, index, iterations)
        return self._look_ahead(state, index + 1, iterations)

    def finished(self, state: DecoderState) -> bool:
        """Whether no sample runs another iteration."""
        memory: PolicyMemory = state.memory[MEMORY]
        return memory.resume > 0 and not memory.active

    def branches(self, state: DecoderState) -> dict[str, tuple[Tensor, Tensor]]:
        """``full``: hidden state and flow as if all samples had run the iteration, where they were computed."""
        full = state.memory[MEMORY].full
        return {} if full is None else {"full": full}

    def report(self, state: DecoderState) -> dict[str, Tensor]:
        """``steps``: how many iterations each sample ran, N."""
        return {"steps": state.memory[MEMORY].steps}

    def _run_whole(self, step: Step, state: DecoderState, index: int, iterations: int) -> DecoderState:
        memory: PolicyMemory = state.memory[MEMORY]
        after = step(state)
        ran = torch.ones_like(memory.keep)
        memory = dataclasses.replace(memory, ran=ran, steps=memory.steps + ran, full=None)
        if index + 1 < iterations:
            memory = self.after_run(memory, state.flow.detach(), after, index, iterations)
        return _remember(after, memory)

    def _run_masked(self, step: Step, state: DecoderState, index: int, iterations: int) -> DecoderState:
        memory: PolicyMemory = state.memory[MEMORY]
        before, after = state.flow.detach(), step(state)
        full, ran = (after.hidden, after.flow), memory.keep
        if index > 0:
            share = ran[:, None, None, None]
            if self.training:
                hidden = state.hidden + share.to(state.hidden) * (after.hidden - state.hidden)
                flow = before + share * (after.flow - before)
            else:
                hidden = torch.where(share > 0, after.hidden, state.hidden)
                flow = torch.where(share > 0, after.flow, before)
            after = dataclasses.replace(after, hidden=hidden, flow=flow)
        memory = dataclasses.replace(memory, ran=ran, steps=memory.steps + ran, full=full)
        return _remember(after, self.after_run(memory, before, after, index, iterations))

    def _run_compact(self, step: Step, state: DecoderState, index: int, iterations: int) -> DecoderState:
        active = state.memory[MEMORY].active
        if not _waits(state.flow):
            # Views cost nothing, and a convolution's time on a CPU is that of its samples.
            ends = [0, *itertools.accumulate(len(list(run)) for _, run in itertools.groupby(active))]
            groups = [(slice(start, stop), active[start]) for start, stop in itertools.pairwise(ends)]
            order = None
        else:
            chosen = [i for i, runs in enumerate(active) if runs]
            others = [i for i, runs in enumerate(active) if not runs]
            both = torch.tensor(chosen + others).to(state.flow.device, non_blocking=True)
            groups = [(both[: len(chosen)], True), (both[len(chosen) :], False)]
            order = both.argsort()
        parts = []
        for group, runs in groups:
            part = state.select(group)
            run = self._run_whole(step, part, index, iterations) if runs else self._rest(part, index, iterations)
            parts.append(run)
        memories = [part.memory[MEMORY] for part in parts]
        hidden = _join([part.hidden.to(state.hidden.dtype) for part in parts], order)
        flow = _join([part.flow for part in parts], order)
        memory = PolicyMemory(
            *(_join([getattr(memory, name) for memory in memories], order) for name in ("keep", "ran", "steps")),
            {key: _join([memory.details[key] for memory in memories], order) for key in memories[0].details},
        )
        return _remember(dataclasses.replace(state, hidden=hidden, flow=flow), memory)

    def _rest(self, state: DecoderState, index: int, iterations: int) -> DecoderState:
        memory = state.memory[MEMORY]
        memory = dataclasses.replace(memory, ran=torch.zeros_like(memory.keep), full=None)
        if index + 1 < iterations:
            memory = self.after_rest(memory, state, index, iterations)
        return _remember(state, memory)

    def _look_ahead(self, state: DecoderState, index: int, iterations: int) -> DecoderState:
        """Decide up to the next iteration from ``index`` on that some sample runs, and find out which samples.

        Reading a decision makes the host wait for a GPU. So there the run of iterations that all leave out is
        followed for 1, 2, 4 ... of them between two looks, which may be for nothing, but is cheap.
        """
        ahead, chain = 1, [state]
        while index < iterations:
            wanted = torch.stack([link.memory[MEMORY].keep for link in chain]).tolist()
            for offset, (link, shares) in enumerate(zip(chain, wanted, strict=True)):
                if any(shares):
                    active = tuple(share > 0 for share in shares)
                    memory = dataclasses.replace(link.memory[MEMORY], resume=index + offset, active=active)
                    return _remember(link, memory)
            index += len(chain)
            state, chain = chain[-1], []
            for following in range(index, min(index + ahead, iterations)):
                state = self._rest(state, following - 1, iterations)
                chain.append(state)
            if _waits(state.flow):
                ahead *= 2
        return _remember(state, dataclasses.replace(state.memory[MEMORY], resume=iterations, active=()))


def _remember(state: DecoderState, memory: PolicyMemory) -> DecoderState:
    return dataclasses.replace(state, memory={**state.memory, MEMORY: memory})


def _join(parts: Sequence[Tensor], order: Tensor | None) -> Tensor:
    joined = torch.cat(list(parts))
    return joined if order is None else joined.index_select(0, order)


def _waits(tensor: Tensor) -> bool:
    """Whether the host waits when it reads a tensor, and few samples at a time are as slow as many: on a GPU."""
    return tensor.device.type != "cpu"
