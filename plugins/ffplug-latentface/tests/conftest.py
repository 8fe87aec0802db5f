import pytest
import torch

from ffplug.registry import MODELS


@pytest.fixture(scope="session")
def narrow() -> dict:
    """A small model of both stages."""
    return dict(
        type="ffplug_latentface.RepresentationDiffusion",
        autoencoder=dict(type="ffplug_latentface.LatentFaceAutoencoder", width=8, code=16),
        width=16,
    )


@pytest.fixture(scope="session")
def model(narrow: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    return MODELS.build(narrow).eval()
