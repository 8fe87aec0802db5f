"""The metrics, on cases that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from ffplug_latentface.evaluation import ExpressionMetric, ReconstructionMetric, VerificationMetric
from ffplug_latentface.evaluation.disentanglement import (
    dci,
    mutual_information_gap,
    probe_accuracy,
    probe_r2,
    separated_attribute_predictability,
)
from ffplug_latentface.evaluation.reconstruction import depth_errors
from ffplug_latentface.evaluation.verification import (
    area_under_curve,
    equal_error_rate,
    roc_curve,
    verification_accuracy,
)

from ffplug.errors import DataError
from ffplug.evaluation import ssim


def test_f1_and_accuracy() -> None:
    metric = ExpressionMetric()
    samples = [
        dict(pred_expr_probability=torch.eye(2)[k], gt_expr=torch.tensor(t), sample_id=n)
        for n, k, t in [("a", 0, 0), ("b", 1, 0), ("b", 1, 0)]
    ]
    metric.process(None, samples)
    figures = metric.compute_metrics(metric.results)
    assert figures["expression/accuracy"] == 0.5 and figures["expression/f1"] == pytest.approx(1 / 3)


def test_reconstruction() -> None:
    image = torch.full((3, 16, 16), 51, dtype=torch.uint8)
    sample = dict(pred_image=torch.full((3, 16, 16), 0.3), sample_id="a")
    metric = ReconstructionMetric()
    for _ in range(2):  # a sampler may repeat a sample
        metric.process({"inputs": [image]}, [sample])
    figures = metric.evaluate(2)
    assert figures["reconstruction/l1"] == pytest.approx(0.1, abs=1e-6)
    assert figures["reconstruction/psnr"] == pytest.approx(20, abs=1e-4)
    assert figures["reconstruction/ssim"] == pytest.approx(ssim(255 * sample["pred_image"], image.double()))
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[:8] = True
    metric.process({"inputs": [image]}, [dict(sample, pred_mask=mask)])
    assert metric.evaluate(1)["reconstruction/l1"] == pytest.approx(0.05, abs=1e-6)


def test_verification() -> None:
    similarity = torch.tensor([0.9, 0.1] * 10)
    same = torch.tensor([True, False] * 10)
    assert verification_accuracy(similarity, same) == (1.0, 0.0)
    assert verification_accuracy(-similarity, same)[0] == pytest.approx(0.5)
    with pytest.raises(DataError, match="folds"):
        verification_accuracy(similarity[:7], same[:7])
    assert area_under_curve(similarity, same) == 1
    assert area_under_curve(torch.ones(4), torch.tensor([True, False, True, False])) == 0.5
    assert equal_error_rate(similarity, same) == 0 and equal_error_rate(-similarity, same) == 1
    mixed_up = torch.tensor([0.9, 0.8, 0.3, 0.7, 0.2, 0.1]), torch.tensor([True, True, True, False, False, False])
    assert equal_error_rate(*mixed_up) == pytest.approx(1 / 3)
    false, true = roc_curve(*mixed_up)
    assert float(torch.trapezoid(true, false)) == pytest.approx(area_under_curve(*mixed_up))
    with pytest.raises(DataError, match="0 of 4"):
        roc_curve(torch.ones(4), torch.zeros(4, dtype=torch.bool))
    metric = VerificationMetric()
    for person in range(3):
        codes = torch.eye(3)[person].expand(4, 3)
        metric.process(
            None, [dict(sample_id=person, person=person, pred_identity=codes, pred_expression=torch.ones(4, 3))]
        )
    assert metric.compute_metrics(metric.results) == {"verification/identity": 1.0, "verification/expression": 0.5}


def test_disentangling() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = torch.rand(400, 3, generator=generator)
    mixed = factors @ torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
    assert float(probe_r2(mixed[:200], factors[:200], mixed[200:], factors[200:]).min()) > 0.99
    noise = torch.rand(400, 3, generator=generator)
    assert float(probe_r2(noise[:200], factors[:200], noise[200:], factors[200:]).max()) < 0.1
    for measure in (lambda x: dci(x, factors)[0], lambda x: mutual_information_gap(x, factors)):
        assert measure(factors) > 0.8 > 0.5 > measure(mixed)
    assert (
        separated_attribute_predictability(factors, factors) > 0.9 > separated_attribute_predictability(mixed, factors)
    )
    labels = (factors[:, 0] > 0.5).long()
    assert probe_accuracy(mixed[:200], labels[:200], mixed[200:], labels[200:], 1e-4) > 0.95
    assert probe_accuracy(noise[:200], labels[:200], noise[200:], labels[200:]) < 0.65
    with pytest.raises(DataError, match="does not vary"):
        probe_r2(mixed, factors, mixed, torch.ones(400, 3))


def test_depth() -> None:
    depth = 1 + 0.05 * torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(16, 16, dtype=torch.bool)
    side, angle = depth_errors(1.1 * depth, depth, mask)
    assert side == pytest.approx(0, abs=1e-6) and angle == pytest.approx(0, abs=0.5)
    assert depth_errors(depth.flip(0), depth, mask)[1] > 10
    assert math.isnan(depth_errors(depth, depth, ~mask)[0])
