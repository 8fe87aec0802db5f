"""Labels for the masks of a pruned network, from the uncertainty that the first phase has learned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import torch
from torch import Tensor

from ffplug.errors import ConfigError
from ffplug.files import atomic_path

RATES = (0.70, 0.45, 0.245)
"""Shares of pixels to keep at 1/8, 1/4 and 1/2 of the size; with them a network needs 48 % of the dense operations."""

FILES = ("guide_mask_3.png", "guide_mask_1.png", "guide_mask_2.png")
"""Names of the labels' files for 1/8, 1/4 and 1/2 of the size, as the published loader has them."""

_LOW, _HIGH, _BINS = -1.0, 7.0, 8192


def thresholds(maps: Iterable[Tensor], rates: Sequence[float] = RATES) -> list[float]:
    """Uncertainties above which the given shares of all pixels of a data set lie, so that hard frames keep more.

    Args:
        maps: N×3×H×W each, see :meth:`ffplug_ugsp.UncertaintyNet.uncertainty`; they are read once.
        rates: a share in 0..1 for each of the three levels.

    Raises:
        ConfigError: there are no maps, or shares are out of range.
    """
    if len(rates) != 3 or not all(0 <= rate <= 1 for rate in rates):
        raise ConfigError(f"rates={rates}: expected three shares in 0..1")
    counts = torch.zeros(3, _BINS, dtype=torch.float64)
    for found in maps:
        for level in range(3):
            values = found[:, level].float().clamp(_LOW, _HIGH)
            counts[level] += torch.histc(values, _BINS, _LOW, _HIGH).double().cpu()
    if not counts.any():
        raise ConfigError("no uncertainty to take thresholds from")
    edges = torch.linspace(_LOW, _HIGH, _BINS + 1)
    kept = counts.flip(1).cumsum(dim=1).flip(1) / counts.sum(dim=1, keepdim=True)
    return [float(edges[int((kept[level] >= rate).sum())]) for level, rate in enumerate(rates)]


def label(uncertainty: Tensor, above: Sequence[float]) -> Tensor:
    """Labels N×3×H×W, 0 or 1, from uncertainty N×3×H×W and the :func:`thresholds`."""
    limits = uncertainty.new_tensor(above).view(1, 3, 1, 1)
    return (uncertainty > limits).to(uncertainty.dtype)


def write_labels(labels: Tensor, folder: str | Path) -> None:
    """Write the labels 3×H×W of one frame as 8-bit pictures of 0 and 255, under the published names.

    Args:
        labels: 0 or 1, for 1/8, 1/4 and 1/2 of the size.
        folder: that of the frame; it is made.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, plane in zip(FILES, labels, strict=True):
        data = cv2.imencode(".png", (plane * 255).byte().cpu().numpy())[1]
        with atomic_path(folder / name) as path:
            Path(path).write_bytes(data.tobytes())
