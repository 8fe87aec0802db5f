"""Inputs and filled weights of the golden files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ffplug.testing.golden import image, values

GOLDEN = Path(__file__).parent / "golden"


def filled(keys_file: Path, scales: dict[str, float] | None = None) -> dict[str, Tensor]:
    """The reference state dict: every key of ``keys_file`` filled, keys with a given ending scaled."""
    state = {}
    for key, shape in json.loads(keys_file.read_text()).items():
        if key.endswith(("num_batches_tracked", "rel_ind")):
            state[key] = torch.zeros(tuple(shape), dtype=torch.int64)
            continue
        factor = next((f for ending, f in (scales or {}).items() if key.endswith(ending)), 1.0)
        state[key] = torch.from_numpy(values(key, tuple(shape))) * factor
    return state


def raft_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Two frames 1×3×128×160 and a first low-resolution flow."""
    first, second = (torch.from_numpy(image(seed, (1, 3, 128, 160))) for seed in (101, 102))
    return first, second, torch.from_numpy(image(103, (1, 2, 16, 20), -2, 2))


def raft_truth() -> tuple[Tensor, Tensor]:
    """Ground-truth flow with a corner beyond the largest motion, and its validity."""
    flow = image(104, (1, 2, 128, 160), -20, 20)
    flow[:, :, :8, :8] = 500
    valid = image(105, (1, 128, 160), 0, 1) > 0.3
    return torch.from_numpy(flow), torch.from_numpy(valid.astype(np.float32))
