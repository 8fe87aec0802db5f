import pytest
import torch
from ffplug_decflow.losses import DecomposedLoss


def terms(masking: str, **changes: torch.Tensor) -> dict[str, float]:
    """Loss of flows that are 1 px off everywhere (facial), right (head), and so 1 px off (expression); 1×2×2×4 each."""
    outputs = {"flows": [torch.full((1, 2, 2, 4), 4.0)] * 2, "head_flows": [torch.full((1, 2, 2, 4), 1.0)] * 2}
    outputs["expression_flows"] = [torch.full((1, 2, 2, 4), 3.0)] * 2
    targets = {
        "flow": torch.full((1, 2, 2, 4), 3.0),
        "valid": torch.ones(1, 2, 4),
        "head_flow": torch.full((1, 2, 2, 4), 1.0),
        "head_valid": torch.ones(1, 2, 4),
        **changes,
    }
    loss = DecomposedLoss(gamma=0.5, masking=masking)
    return {name: value.item() for name, value in loss(outputs, targets).items()}


@pytest.mark.parametrize("masking", ["both", "published"])
def test_weights_and_decay(masking: str):
    found = terms(masking)
    assert found["loss"] == pytest.approx(1.5)
    assert found["head_loss"] == 0
    assert found["expression_loss"] == pytest.approx(1.5 * 1.5)
    assert found["expression_epe"] == pytest.approx(2**0.5) and found["head_epe"] == 0


def test_half_of_the_facial_flow_invalid():
    valid = torch.tensor([[[1.0, 1, 0, 0], [1, 1, 0, 0]]])
    for masking, share in (("both", 0.5), ("published", 1.0)):
        found = terms(masking, valid=valid)
        assert found["loss"] == pytest.approx(0.75)
        assert found["expression_loss"] == pytest.approx(1.5 * 1.5 * share)


def test_half_of_the_head_flow_invalid():
    valid = torch.tensor([[[1.0, 1, 0, 0], [1, 1, 0, 0]]])
    for masking in ("both", "published"):
        found = terms(masking, head_valid=valid)
        assert found["loss"] == pytest.approx(1.5)
        assert found["expression_loss"] == pytest.approx(1.5 * 1.5 / 2)


def test_facial_flow_too_long():
    flow = torch.full((1, 2, 2, 4), 3.0)
    flow[..., 2:] = 300  # 424 px long
    assert terms("both", flow=flow)["expression_loss"] == pytest.approx(1.5 * 1.5 / 2)
    published = terms("published", flow=flow)["expression_loss"]
    assert published == pytest.approx(1.5 * 1.5 * (1 + (300 - 1 - 3)) / 2)
    assert terms("published", flow=flow)["loss"] == pytest.approx(0.75)
