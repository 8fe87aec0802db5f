import json
from pathlib import Path

import pytest
import torch

from ffplug.testing.golden import values

GOLDEN = Path(__file__).parent / "golden" / "decflow"
SCALES = {"att.to_qk.weight": 3.0, "aggregator.gamma": 10.0}


@pytest.fixture(scope="session")
def published() -> dict[str, torch.Tensor]:
    """A state dict under the keys of DecFlow's published code, filled."""
    state = {}
    for key, shape in json.loads((GOLDEN / "keys.json").read_text()).items():
        if key.endswith(("num_batches_tracked", "rel_ind")):
            state[key] = torch.zeros(tuple(shape), dtype=torch.int64)
            continue
        factor = next((scale for ending, scale in SCALES.items() if key.endswith(ending)), 1.0)
        state[key] = torch.from_numpy(values(key, tuple(shape))) * factor
    return state
