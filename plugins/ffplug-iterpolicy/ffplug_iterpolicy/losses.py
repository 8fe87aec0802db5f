"""What the policy learns from, beside the sequence loss on the flow: budget and expected increment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ffplug.errors import ConfigError
from ffplug.models.parts import FlowLoss
from ffplug_iterpolicy.models.skipping import MEMORY, PolicyMemory
from ffplug_iterpolicy.registry import MODELS


@MODELS.register_module()
class IterationPolicyLoss(FlowLoss):
    """Resource preference and incremental loss of the learned policy (AAAI 2024, section 3.3).

    ``budget · relu(mean(keep) - r) + incremental · sum_t mean(|a_t - b_{t+1} - increment_t|)``: the share of iterations
    that run, over batch and all iterations but the first, may not exceed the preference r; and the policy foretells how
    much the next iteration would lower the error, where a_t is the error (L1, mean of x and y) of the flow after
    iteration t and b_{t+1} that which iteration t+1 would give, run in full. Also gives ``keep`` and ``preference`` for
    the log.

    Args:
        budget: weight of the first term: 50 for RAFT and GMA, 5 for FlowFormer.
        incremental: weight of the second: 1 for RAFT and GMA, 0.1 for FlowFormer.
        max_flow: ground truth of this length (pixels) or more is left out.
        name: which decoder's policy: ``""`` for the main one, or the name of a further decoder.

    Raises:
        ConfigError: when run, that decoder has no :class:`ffplug_iterpolicy.ContextIterationPolicy`.
    """

    def __init__(self, budget: float = 50.0, incremental: float = 1.0, max_flow: float = 400.0, name: str = "") -> None:
        super().__init__()
        self.budget = budget
        self.incremental = incremental
        self.max_flow = max_flow
        self.prefix = f"{name}_" if name else ""

    def forward(self, outputs: dict[str, Any], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`ffplug.models.parts.FlowLoss`."""
        memories: list[PolicyMemory | None] = [state.memory.get(MEMORY) for state in outputs[f"{self.prefix}states"]]
        if any(memory is None or "increment" not in memory.details for memory in memories):
            raise ConfigError(
                f"IterationPolicyLoss(name={self.prefix.rstrip('_')!r}): this decoder has no learned policy: "
                "set policy=dict(type='ffplug_iterpolicy.ContextIterationPolicy')"
            )
        preference = memories[0].details["preference"].mean()
        ran = [memory.ran for memory in memories[1:]]
        keep = torch.stack(ran).mean() if ran else preference.new_zeros(())
        truth = targets[f"{self.prefix}flow"]
        valid = (targets[f"{self.prefix}valid"] >= 0.5) & (truth.norm(dim=1) < self.max_flow)
        truth = torch.where(valid[:, None], truth, 0)
        count = valid.sum().clamp(min=1)
        terms = preference.new_zeros(())
        flows, full = outputs[f"{self.prefix}flows"], outputs[f"{self.prefix}full_flows"]
        for index, memory in enumerate(memories[:-1]):
            gain = (flows[index] - truth).abs().mean(dim=1) - (full[index + 1] - truth).abs().mean(dim=1)
            terms = terms + ((gain - memory.details["increment"][:, None, None]).abs() * valid).sum() / count
        return {
            f"{self.prefix}loss_budget": self.budget * torch.relu(keep - preference),
            f"{self.prefix}loss_increment": self.incremental * terms,
            f"{self.prefix}keep": keep.detach(),
            f"{self.prefix}preference": preference.detach(),
        }
