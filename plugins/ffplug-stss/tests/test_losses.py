"""Loss terms against the published code's figures."""

import json
from pathlib import Path

import pytest
import torch
from ffplug_stss.losses import PerceptualLoss, ReshadingLoss

from ffplug.errors import ConfigError
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


def test_perceptual_term_compares_the_first_frames(frames, tmp_path):
    """With weights of VGG-16's shapes; that the distance is LPIPS is tested with the core's."""
    prediction, target, mask = (tensor[..., :16, :16] for tensor in frames)
    draw = torch.Generator().manual_seed(0)
    widths = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    state, place, before = {}, 0, 3
    for width, depth in widths:
        for _ in range(depth):
            state[f"features.{place}.weight"] = (
                torch.randn(width, before, 3, 3, generator=draw) * (2 / 9 / before) ** 0.5
            )
            state[f"features.{place}.bias"] = torch.zeros(width)
            place, before = place + 2, width
        place += 1
    torch.save(state, tmp_path / "vgg16.pth")
    heads = {f"lin{number}.model.1.weight": torch.ones(1, width, 1, 1) for number, (width, _) in enumerate(widths)}
    torch.save(heads, tmp_path / "heads.pth")
    files = dict(backbone=tmp_path / "vgg16.pth", heads=tmp_path / "heads.pth")
    loss = PerceptualLoss(0.5, frames=1, **files)
    prediction = prediction.clone().requires_grad_()
    term = loss(prediction, target, mask)["loss_perceptual"]
    term.backward()
    with torch.no_grad():
        assert float(term) == pytest.approx(0.5 * float(loss.distance(prediction[:1], target[:1])), rel=1e-5)
        assert float(loss(target, target, mask)["loss_perceptual"]) == 0
    assert prediction.grad[0].abs().max() > 0 and not prediction.grad[1].any()
    with pytest.raises(ConfigError, match="frames=0"):
        PerceptualLoss(frames=0, **files)
