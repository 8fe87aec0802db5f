"""SKFlow: ptlflow's."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from peers.ptlflow_models import paired


def implementations(iterations: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """FFPlug's and ptlflow's SKFlow with equal weights."""
    return paired("skflow", "skflow", ("fnet", "cnet", "update_block", "att"), iterations)[0]
