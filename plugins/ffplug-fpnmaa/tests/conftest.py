import json
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def published_state():
    """The published checkpoint's keys with weights that were drawn by them."""
    from ffplug.testing.golden import values

    shapes = json.loads((GOLDEN / "keys.json").read_text())
    return {key: torch.from_numpy(values(key, tuple(shape))) for key, shape in shapes.items()}


@pytest.fixture(scope="session")
def golden():
    """What the published network computed, as tensors by name."""
    with np.load(GOLDEN / "multi128x128.npz") as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}
