import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ffplug
from ffplug.apis.converters import convert_state_dict
from ffplug.testing.golden import image, values

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden():
    """What a published implementation computed, as tensors by name."""

    def read(name):
        with np.load(GOLDEN / name) as arrays:
            return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}

    return read


@pytest.fixture(scope="session")
def drawn():
    """Float tensors that were drawn alike for the published implementation."""

    def draw(seed, shape, low=0, high=1):
        return torch.from_numpy(image(seed, shape, low, high))

    return draw


@pytest.fixture(scope="session")
def published():
    """A network with the weights that the published one was given: filled by their keys, some scaled."""

    def load(name, keys, scale, channels="rgb"):
        shapes = json.loads((GOLDEN / keys).read_text())
        state = {key: torch.from_numpy(values(key, tuple(shape))) for key, shape in shapes.items()}
        scale(state)
        model = ffplug.build_model(name)
        converted = convert_state_dict(state, name)
        model.load_state_dict(converted, strict=False)
        return model.network

    return load
