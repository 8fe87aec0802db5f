import math

import pytest
import torch
from ffplug_decflow.evaluation import FaceFlowMetric

from ffplug.errors import DataError


def constant(x: float, y: float) -> torch.Tensor:
    return torch.tensor([x, y])[:, None, None].expand(2, 4, 5).clone()


def sample(name: str = "a", **changes: torch.Tensor) -> dict:
    """4×5 pixels, of which 6 are face; facial error 5 there and 0.5 beside it, head error 2, expression error 3."""
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[:2, :3] = True
    facial = constant(3.0, 0.0)
    predicted = torch.where(mask, facial + constant(3.0, 4.0), facial + constant(0.5, 0.0))
    fields = dict(
        gt_flow=facial,
        gt_valid=torch.ones(4, 5),
        pred_flow=predicted,
        gt_head_flow=constant(2.0, 0.0),
        gt_head_valid=torch.ones(4, 5),
        pred_head_flow=constant(4.0, 0.0),
        gt_expression_flow=constant(1.0, 0.0),
        gt_expression_valid=torch.ones(4, 5),
        pred_expression_flow=constant(1.0, 3.0),
        gt_mask=mask,
        dataset="FacialFlowNet",
        sample_id=name,
    )
    return {**fields, **changes}


def measured(*samples: dict) -> dict[str, float]:
    metric = FaceFlowMetric(prefix="x")
    metric.process(None, samples)
    return {key.removeprefix("x/"): value for key, value in metric.evaluate(len(samples)).items()}


def test_within_the_face_and_as_published():
    found = measured(sample())
    assert found["facial/EPE"] == pytest.approx(5)
    assert found["facial/1px"] == 0 and found["facial/3px"] == 0 and found["facial/5px"] == 0
    assert found["facial/ffn_epe"] == pytest.approx((6 * 5 + 14 * 0.5) / 6)
    assert found["facial/ffn_1px"] == found["facial/ffn_3px"] == pytest.approx(14 / 6)
    assert found["head/EPE"] == pytest.approx(2) and found["head/3px"] == 1 and found["head/1px"] == 0
    assert found["head/ffn_epe"] == pytest.approx(20 * 2 / 6) and found["head/ffn_3px"] == pytest.approx(20 / 6)
    assert found["expression/EPE"] == pytest.approx(3) and found["expression/5px"] == 1
    assert found["expression/3px"] == 0  # an error of the threshold is not below it
    true, predicted = (1, 0, 1), (1, 3, 1)
    cosine = sum(a * b for a, b in zip(true, predicted, strict=True)) / math.sqrt(2 * 11)
    assert found["expression/angle"] == pytest.approx(math.degrees(math.acos(cosine)))


def test_by_the_length_of_the_expression_flow():
    expression = constant(0.0, 0.0)
    expression[0, 0, :2] = 0.5
    expression[0, 1, 0] = 2.0
    predicted = expression.clone()
    predicted[1, 0, 0] += 1.0
    predicted[1, 1, 0] -= 4.0
    found = measured(sample(gt_expression_flow=expression, pred_expression_flow=predicted))
    assert found["expression/EPE_s0-0.5"] == 0
    assert found["expression/EPE_s0.5-2"] == pytest.approx(0.5)
    assert found["expression/EPE_s2+"] == pytest.approx(4)
    assert "expression/EPE_s2+" not in measured(sample())  # no pixel moves that far
    occlusion = torch.zeros(4, 5, dtype=torch.bool)
    occlusion[1, 0] = occlusion[3, 4] = True
    found = measured(sample(gt_expression_flow=expression, pred_expression_flow=predicted, gt_occlusion=occlusion))
    assert found["expression/EPE_occluded"] == pytest.approx(4)


def test_pairs_are_averaged_and_counted_once():
    other = sample("b", pred_head_flow=constant(2.0, 0.0))
    assert measured(sample(), other, other)["head/EPE"] == pytest.approx(1)


def test_invalid_pixels_count_in_no_mean():
    valid = torch.ones(4, 5)
    valid[0] = 0
    predicted = constant(2.0, 0.0)
    predicted[0, 0] = 100.0
    found = measured(sample(gt_head_valid=valid, pred_head_flow=predicted))
    assert found["head/EPE"] == 0 and found["head/1px"] == 1


def test_only_what_is_there_is_measured():
    alone = {key: value for key, value in sample().items() if "head" not in key and "expression" not in key}
    del alone["gt_mask"]
    found = measured(alone)
    assert set(found) == {f"facial/{name}" for name in ("EPE", "1px", "3px", "5px", "angle")} | {
        f"facial/ffn_{name}" for name in ("epe", "1px", "3px", "5px")
    }
    assert found["facial/EPE"] == found["facial/ffn_epe"] == pytest.approx((6 * 5 + 14 * 0.5) / 20)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(gt_mask=torch.zeros(4, 5)), "a: the mask of the face is empty"),
        (dict(gt_mask=torch.ones(3, 5)), "gt_mask: expected 4×5"),
        (dict(pred_head_flow=torch.zeros(2, 4, 8)), "a: head flow: predicted flow is 8×4"),
        (dict(sample_id=None), "neither sample_id nor img1_path"),
    ],
)
def test_what_cannot_be_measured(changes: dict, said: str):
    with pytest.raises(DataError, match=said):
        measured(sample(**changes))
