"""FlowFormer: ptlflow's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from peers.ptlflow_models import paired


def implementations(iterations: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """FFPlug's and ptlflow's FlowFormer with equal weights."""
    parts = ("memory_encoder", "memory_decoder", "context_encoder")
    # Its number of iterations is an argument, not an attribute.
    return paired("flowformer", "flowformer", parts, iterations, decoder_depth=iterations)[0]
