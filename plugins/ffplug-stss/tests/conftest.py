import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ffplug.apis.weights import find_file
from ffplug.errors import CheckpointError
from ffplug.testing.golden import image, values

GOLDEN = Path(__file__).parent / "golden" / "stss"


def blocks(seed, shape, low, high, size=8):
    """Piecewise constant values in blocks along the last two axes."""
    *before, height, width = shape
    return np.kron(
        image(seed, (*before, height // size, width // size), low, high),
        np.ones((1,) * len(before) + (size, size), np.float32),
    )


@pytest.fixture(scope="session")
def network_inputs():
    def make(seed, kind="noise", batch=1, height=64, width=96):
        draw = {"noise": image, "blocks": blocks}[kind]
        feature = [draw(seed + 1, (batch, 3, height, width), -1, 1), draw(seed + 2, (batch, 6, height, width), 0, 1)]
        mask = image(seed + 3, (batch, 1, height, width), 0, 1) > 0.25
        history = [
            draw(seed + 4, (batch, 3, 3, height, width), 0, 1),
            image(seed + 5, (batch, 3, 1, height, width), 0, 1) > 0.25,
        ]
        arrays = (
            draw(seed, (batch, 6, height, width), 0, 1),
            np.concatenate(feature, axis=1),
            mask,
            np.concatenate(history, axis=2),
        )
        return [torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) for array in arrays]

    return make


@pytest.fixture(scope="session")
def published() -> dict[str, torch.Tensor]:
    """A state dict under the keys of STSS's published code, filled."""
    state = {}
    for key, shape in json.loads((GOLDEN / "keys.json").read_text()).items():
        value = torch.from_numpy(values(key, tuple(shape)))
        scale = 1 if value.ndim < 2 else 2.2 if key.endswith("conv_feature.weight") else 1.6
        state[key] = value * scale
    return state


@pytest.fixture(scope="session")
def released():
    """Check that released weights lie on this machine, and give their name back; else skip."""

    def find(name):
        try:
            find_file(name)
        except CheckpointError as error:
            pytest.skip(str(error))
        return name

    return find
