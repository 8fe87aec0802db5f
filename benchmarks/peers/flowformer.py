"""FlowFormer: ptlflow's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from peers.ptlflow_models import paired


def implementations(iterations: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """FFPlug's and ptlflow's FlowFormer with equal weights."""
    return paired("flowformer", "flowformer", ("memory_encoder", "memory_decoder", "context_encoder"), iterations)[0]
