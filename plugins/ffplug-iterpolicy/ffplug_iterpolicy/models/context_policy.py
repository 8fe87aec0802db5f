"""The learned, context-aware iteration policy (Cheng et al., AAAI 2024, arXiv 2312.07180)."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.errors import ConfigError
from ffplug.models.layers import convolve
from ffplug.models.parts import DecoderState, Encoded
from ffplug_iterpolicy.models.skipping import PolicyMemory, SkippingPolicy
from ffplug_iterpolicy.registry import MODELS

PREFERENCES = (0.2, 1.0)
"""Range of the resource preference in training."""


def iteration_embedding(bins: int = 8) -> Tensor:
    """Embedding of how far the iterations are, bins×7: the bin's number b, then sin and cos of b, 2b and 4b."""
    number = torch.arange(bins, dtype=torch.float32)
    waves = [wave(factor * number) for factor in (1, 2, 4) for wave in (torch.sin, torch.cos)]
    return torch.stack((number, *waves), dim=1)


def iteration_bin(index: int, iterations: int, bins: int) -> int:
    """The bin of iteration ``index`` of ``iterations``: equal shares of the way, so policies go with any number."""
    return int(index // (iterations / bins))


class PolicyCell(nn.Module):
    """The historical hidden cell, and the decision that is read from it.

    ``hidden' = relu(r · conv3x3([state, flow, delta, hidden, embedding, credibility]))`` and
    ``(increment, keep, skip) = linear(mean(hidden'))``. The history is rectified because the public code's ReLU, on the
    way to the decision, works in place. The convolution is linear in what it reads, so each input
    has its share of its own, which is computed when that input changes: the update block's state after an iteration
    that ran, the flow likewise, embedding and credibility once for a frame pair. After an iteration that was left out
    the hidden part alone is new.

    Args:
        hidden_channels: C of the update block's hidden state.
        credibility: read one more plane, the prior's credibility.
        bins: number of iteration embeddings.
    """

    def __init__(self, hidden_channels: int, credibility: bool = False, bins: int = 8) -> None:
        super().__init__()
        self.sizes = {"state": hidden_channels, "flow": 2, "delta": 2, "embedding": 7}
        channels = sum(self.sizes.values()) // 8
        self.sizes = {"state": hidden_channels, "flow": 2, "delta": 2, "hidden": channels, "embedding": 7}
        self.sizes["credibility"] = int(credibility)
        self.channels = channels
        self.bins = bins
        self.convolution = nn.Conv2d(sum(self.sizes.values()), channels, 3, padding=1)
        self.decision = nn.Linear(channels, 3)
        self.register_buffer("embedding", iteration_embedding(bins), persistent=False)

    def share(self, *names: str) -> Tensor:
        """The part of the convolution's weight that reads some inputs, which must follow one another."""
        order = list(self.sizes)
        start = sum(self.sizes[name] for name in order[: order.index(names[0])])
        return self.convolution.weight[:, start : start + sum(self.sizes[name] for name in names)]

    def embed(self, height: int, width: int) -> Tensor:
        """The share of embedding and bias, bins×channels×min(height, 3)×min(width, 3).

        An embedding is the same everywhere, so its share differs at the border alone; :func:`spread` makes the whole.
        """
        planes = self.embedding[:, :, None, None].expand(-1, -1, min(height, 3), min(width, 3))
        return F.conv2d(planes, self.share("embedding"), self.convolution.bias, padding=1)

    def decide(self, hidden: Tensor) -> Tensor:
        """Hidden map N×channels×h×w -> the expected increment and the logits of keep and skip, N×3."""
        return self.decision(hidden.mean(dim=(2, 3)))


def spread(borders: Tensor, height: int, width: int) -> Tensor:
    """Repeat the middle of N×C×3×3 up to N×C×height×width; sides shorter than 3 are complete already."""
    for dim, length in ((2, height), (3, width)):
        if length > 3:
            first, middle, last = borders.split(1, dim)
            sizes = [-1] * 4
            sizes[dim] = length - 2
            borders = torch.cat((first, middle.expand(sizes), last), dim)
    return borders


@MODELS.register_module()
class ContextIterationPolicy(SkippingPolicy):
    """Decides for each sample after each iteration whether it runs the next (AAAI 2024, section 3).

    A resource preference r goes into every decision: smaller runs fewer iterations. It comes from the sample's further
    input ``preference`` where there is one, else from the argument, else from the checkpoint (where
    ``ffplug policy calibrate`` puts it), and is 1 without any. In training it is drawn from U(0.2, 1) once for a batch,
    and decisions are soft: ``softmax((logits + Gumbel noise) / temperature)``; ``ffplug_iterpolicy.PolicyHook`` sets
    the temperature.

    Args:
        hidden_channels: C of the update block's hidden state.
        preference: r, above 0, or None for the checkpoint's.
        mode: see :class:`ffplug_iterpolicy.models.SkippingPolicy`.
        credibility: read the prior's credibility too: N×1×h×w in 0..1, which the prior leaves in
            ``state.memory["credibility"]``, or the further input of that name.
        straight_through: in training take the hard decision, with the soft one's gradient. The paper's is soft.
        init_cfg: see MMEngine's ``BaseModule``.

    Raises:
        ConfigError: a preference that is not above 0, an unknown mode; when run, no credibility.
    """

    def __init__(
        self,
        hidden_channels: int = 128,
        preference: float | None = None,
        mode: str = "compact",
        credibility: bool = False,
        straight_through: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(mode, init_cfg)
        if preference is not None and not preference > 0:
            raise ConfigError(f"policy.preference={preference!r}: expected a number above 0 (trained on 0.2 to 1)")
        self.hidden_channels = hidden_channels
        self.preference = preference
        self.credibility = credibility
        self.straight_through = straight_through
        self.temperature = 1.0
        self.cell = PolicyCell(hidden_channels, credibility)
        self.register_buffer("calibrated", torch.ones(()))

    def start(self, encoded: Encoded, state: DecoderState, iterations: int) -> dict[str, Tensor]:
        """Empty history, the preference, and what is the same in all iterations."""
        count, _, height, width = state.flow.shape
        cell, weight = self.cell, self.cell.convolution.weight
        with torch.autocast(weight.device.type, enabled=False):
            constant = cell.embed(height, width).expand(count, -1, -1, -1, -1)
            details = {
                "constant": constant,
                "hidden": weight.new_zeros(count, cell.channels, height, width),
                "preference": self._preference(encoded, count).to(weight),
                "increment": weight.new_zeros(count),
                "logits": weight.new_zeros(count, 2),
            }
            if self.credibility:
                plane = state.memory.get("credibility", encoded.inputs.get("credibility"))
                if plane is None or plane.shape != (count, 1, height, width):
                    found = "there is none" if plane is None else f"it is {tuple(plane.shape)}"
                    raise ConfigError(
                        f"policy.credibility=True needs a credibility of {(count, 1, height, width)}, and {found}: use "
                        "a prior that gives one, as ffplug-mvflow's, or policy.credibility=False"
                    )
                details["credibility"] = F.conv2d(plane.to(weight), cell.share("credibility"), padding=1)
        return details

    def after_run(
        self, memory: PolicyMemory, before: Tensor, state: DecoderState, index: int, iterations: int
    ) -> PolicyMemory:
        """See :class:`ffplug_iterpolicy.models.SkippingPolicy`."""
        weight, details = self.cell.convolution.weight, memory.details
        with torch.autocast(weight.device.type, enabled=False):
            moved = torch.cat((before, state.flow - before, details["hidden"]), dim=1).to(weight)
            fixed = convolve(state.hidden.to(weight), self.cell.share("state"), None)
            fresh = convolve(moved, self.cell.share("flow", "delta", "hidden"), None, fixed)
            if not (self.training or self.mode == "mask"):
                # Should the next iterations be left out, this is what they share.
                still = convolve(state.flow.detach().to(weight), self.cell.share("flow"), None, fixed)
                details = {**details, "still": still}
            return self._decide(dataclasses.replace(memory, details=details), fresh, index, iterations)

    def after_rest(self, memory: PolicyMemory, state: DecoderState, index: int, iterations: int) -> PolicyMemory:
        """See :class:`ffplug_iterpolicy.models.SkippingPolicy`."""
        weight, details = self.cell.convolution.weight, memory.details
        with torch.autocast(weight.device.type, enabled=False):
            fresh = convolve(details["hidden"], self.cell.share("hidden"), None, details["still"])
            return self._decide(memory, fresh, index, iterations)

    def _decide(self, memory: PolicyMemory, fresh: Tensor, index: int, iterations: int) -> PolicyMemory:
        details, cell = memory.details, self.cell
        constant = details["constant"][:, iteration_bin(index, iterations, cell.bins)]
        hidden = fresh + spread(constant, *fresh.shape[2:])
        if "credibility" in details:
            hidden = hidden + details["credibility"]
        hidden = torch.relu(hidden * details["preference"][:, None, None, None])
        increment, *logits = cell.decide(hidden).unbind(1)
        logits = torch.stack(logits, dim=1)
        keep = self._sample(logits) if self.training else (logits[:, 0] > logits[:, 1]).to(memory.keep)
        details = {**details, "hidden": hidden, "increment": increment, "logits": logits}
        return dataclasses.replace(memory, keep=keep, details=details)

    def _sample(self, logits: Tensor) -> Tensor:
        noise = -torch.log(-torch.log(self.draw_uniform(logits)))
        keep = torch.softmax((logits + noise) / self.temperature, dim=1)[:, 0]
        return keep + ((keep > 0.5).to(keep) - keep).detach() if self.straight_through else keep

    def draw_uniform(self, logits: Tensor) -> Tensor:
        """Uniform numbers N×2 for the Gumbel noise of a training step, away from 0 and 1, where it is infinite."""
        tiny = torch.finfo(logits.dtype).eps
        return torch.rand_like(logits).clamp(tiny, 1 - tiny)

    def _preference(self, encoded: Encoded, count: int) -> Tensor:
        if "preference" in encoded.inputs:
            return encoded.inputs["preference"].reshape(count)
        if self.training:
            return torch.empty((), device=self.calibrated.device).uniform_(*PREFERENCES).expand(count)
        fixed = self.calibrated if self.preference is None else torch.full_like(self.calibrated, self.preference)
        return fixed.expand(count)
