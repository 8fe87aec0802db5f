"""Loss terms against the published code's figures."""

import json
from pathlib import Path

import pytest
import torch
from ffplug_stss.losses import ReshadingLoss

from ffplug.testing.golden import image

GOLDEN = Path(__file__).parent / "golden" / "stss"


@pytest.fixture
def frames():
    prediction, target = (torch.from_numpy(image(600 + k, (2, 3, 64, 80), 0, 1)) for k in range(2))
    mask = torch.ones(2, 1, 32, 40)
    mask[0, 0, 5:17, 7:20] = mask[1, 0, 3:6, 0:9] = mask[1, 0, 10, 10] = 0
    return prediction, target, mask


def test_terms_are_the_published_ones(frames):
    golden = json.loads((GOLDEN / "loss.json").read_text())
    terms = ReshadingLoss()(*frames)
    assert float(terms["loss_l1"]) == pytest.approx(golden["loss_full"], rel=1e-6)
    assert float(terms["loss_hole"]) == pytest.approx(golden["loss_mask"], rel=1e-6)


def test_without_holes_their_term_is_zero(frames):
    prediction, target, mask = frames
    assert ReshadingLoss()(prediction, target, torch.ones_like(mask))["loss_hole"] == 0
