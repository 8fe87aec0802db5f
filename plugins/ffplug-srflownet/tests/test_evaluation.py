import math

import pytest
import torch
from ffplug_srflownet.evaluation import FacialFlowMetric

from ffplug.errors import DataError


def sample(name: str = "a", slope: float = 0.0, drift: float = 0.0) -> dict:
    """4×6 pixels, the left half face: the flow is 0, the prediction a ramp on the face and a drift beside it."""
    face = torch.zeros(4, 6, dtype=torch.bool)
    face[:, :3] = True
    x = torch.arange(6.0).expand(4, 6)
    predicted = torch.stack((torch.where(face, slope * x, drift), torch.zeros(4, 6)))
    return dict(pred_flow=predicted, gt_flow=torch.zeros(2, 4, 6), gt_foreground=face, dataset="test", sample_id=name)


def test_the_figures_are_those_of_the_face_and_of_what_is_beside_it():
    metric = FacialFlowMetric(border=1)
    metric.process(None, [sample(slope=2.0, drift=0.5)])
    metric.process(None, [sample(slope=2.0, drift=0.5)])  # a pair that a sampler repeats counts once
    # On the face: 4 rows of 0, 2, 4. Derivatives: 8 along x and 9 down, of two components; 8 of them are 2.
    expected = {"EPE": (4 * 6 + 12 * 0.5) / 24, "EPE_face": 2.0, "drift": 0.5, "gradient": 8 * 2 / (2 * (8 + 9))}
    expected |= {"EPE_contour": (4 + 0.5) / 2, "EPE_inside": (0 + 2) / 2}  # columns 2 and 3; columns 0 and 1
    assert metric.evaluate(1) == {f"facial/{name}": pytest.approx(value) for name, value in expected.items()}


def test_unknown_truth_is_left_out_of_the_errors_and_not_of_the_drift():
    bad = sample(slope=2.0, drift=0.5)
    bad["gt_valid"] = torch.zeros(4, 6)
    bad["gt_valid"][0, 0] = 1
    bad["gt_flow"][:, 1:] = float("nan")
    metric = FacialFlowMetric()
    metric.process(None, [bad])
    found = metric.evaluate(1)
    assert found["facial/EPE"] == found["facial/EPE_face"] == 0 and found["facial/drift"] == 0.5
    assert math.isnan(found["facial/gradient"])


def test_a_prediction_that_is_not_finite_is_infinitely_wrong():
    bad = sample()
    bad["pred_flow"][0, 0, 0] = float("nan")
    metric = FacialFlowMetric(operator="sobel")
    metric.process(None, [bad])
    found = metric.evaluate(1)
    assert found["facial/EPE"] == found["facial/EPE_face"] == found["facial/gradient"] == math.inf


def test_a_sample_without_the_mask_is_named():
    with pytest.raises(DataError, match="a has no gt_skin"):
        FacialFlowMetric(mask="skin").process(None, [sample()])
