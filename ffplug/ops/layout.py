"""Memory layouts that the kernels read."""

from __future__ import annotations

from torch import Tensor


def pixel_rows(x: Tensor) -> Tensor:
    """N×C×H×W -> N×H×W×C, contiguous: a view of a channels-last map, else a copy."""
    return x.permute(0, 2, 3, 1).contiguous()
