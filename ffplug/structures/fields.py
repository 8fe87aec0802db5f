"""What the fields of a sample promise, and whether a sample keeps it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Field:
    """What one tensor of a sample promises.

    Attributes:
        shape: sizes with a space between: a number, a letter, or both (``"2 H W"``, ``"2 2H 2W"``). A letter stands
            for one size within a sample.
        dtype: its type.
        low: least value, or None.
        high: greatest value, or None.
        finite: whether NaN and infinity are excluded.
    """

    shape: str
    dtype: torch.dtype
    low: float | None = None
    high: float | None = None
    finite: bool = True


def broken_promises(values: Mapping[str, Any], fields: Mapping[str, Field]) -> list[str]:
    """Compare a sample's tensors with what its fields promise.

    Args:
        values: tensors by name; a field that is absent is no complaint.
        fields: the promises by name.

    Returns:
        One line for each that is broken, with what was found and what was promised.
    """
    complaints = []
    sizes: dict[str, int] = {}
    for name, field in fields.items():
        value = values.get(name)
        if value is None:
            continue
        if not isinstance(value, Tensor):
            complaints.append(f"{name} is {type(value).__name__}, promised is a tensor {field.shape}")
        elif value.dtype != field.dtype:
            complaints.append(f"{name} is {_short(value.dtype)}, promised is {_short(field.dtype)}")
        elif not _fits(tuple(value.shape), field.shape, sizes):
            known = "".join(f", {letter} = {size}" for letter, size in sizes.items())
            complaints.append(f"{name} is {'×'.join(map(str, value.shape))}, promised is {field.shape}{known}")
        elif field.finite and value.is_floating_point() and not bool(value.isfinite().all()):
            complaints.append(f"{name} holds NaN or infinity, promised are finite values")
        elif value.numel():
            low, high = float(value.min()), float(value.max())
            if (field.low is not None and low < field.low) or (field.high is not None and high > field.high):
                complaints.append(f"{name} lies in {low:g}..{high:g}, promised is {field.low}..{field.high}")
    return complaints


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _fits(shape: tuple[int, ...], promised: str, sizes: dict[str, int]) -> bool:
    """Whether a shape is as promised; letters met for the first time get their size in ``sizes``."""
    tokens = promised.split()
    if len(tokens) != len(shape):
        return False
    for size, token in zip(shape, tokens, strict=True):
        factor, letter = re.fullmatch(r"(\d*)([A-Za-z]*)", token).groups()
        if not letter:
            if size != int(factor):
                return False
        elif size % int(factor or 1) or sizes.setdefault(letter, size // int(factor or 1)) * int(factor or 1) != size:
            return False
    return True
