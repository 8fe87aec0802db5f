import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

import ffplug
from ffplug.cli import cli, run
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
def published(tmp_path_factory):
    """A network with the weights that the published one was given: filled by their keys, some scaled.

    They come out of a file as the public training writes it, by ``ffplug convert``.
    """
    folder = tmp_path_factory.mktemp("published")

    def load(name, keys, scale):
        shapes = json.loads((GOLDEN / keys).read_text())
        state = OrderedDict((key, torch.from_numpy(values(key, tuple(shape)))) for key, shape in shapes.items())
        scale(state)
        if not name.startswith(
            "ifrnet"
        ):  # RIFE's and UGSP's trainings save the network that is wrapped for several GPUs
            state = OrderedDict((f"module.{key}", value) for key, value in state.items())
        file, converted = folder / f"{name}.pkl", folder / f"{name}.safetensors"
        torch.save(state, file)
        assert run(cli, ["convert", str(file), str(converted), "--from", name], "ffplug") == 0
        return ffplug.build_model(name, checkpoint=converted).network

    return load
