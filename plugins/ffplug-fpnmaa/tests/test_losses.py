"""Losses against numbers worked out by other means, with labels missing, and on two ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ffplug_fpnmaa.evaluation import ccc
from ffplug_fpnmaa.losses import BinnedCE, CCCLoss, DistillLoss, MaskedBCE, MaskedCE, MaskedMSE, class_weights
from ffplug_fpnmaa.models import MultiTaskAffectHead

from ffplug.errors import ConfigError, DataError

sys.path.insert(0, str(Path(__file__).parent))
from two_ranks import batch


def stacked(samples, field):
    return torch.stack([sample[field] for sample in samples])


def test_full_labels_give_the_usual_losses():
    outputs, samples = batch()
    torch.testing.assert_close(
        MaskedMSE()(outputs, samples)["loss_va"], F.mse_loss(outputs["va"], stacked(samples, "gt_va"))
    )
    labels, weights = stacked(samples, "gt_expr"), torch.arange(1.0, 8)
    torch.testing.assert_close(
        MaskedCE(class_weights=weights.tolist(), label_smoothing=0.0)(outputs, samples)["loss_expr"],
        F.cross_entropy(outputs["expr"], labels, weight=weights),
    )
    torch.testing.assert_close(
        MaskedCE(weight=2, label_smoothing=0.1, name="loss_smooth")(outputs, samples)["loss_smooth"],
        2 * F.cross_entropy(outputs["expr"], labels, label_smoothing=0.1),
    )
    positives = torch.arange(1.0, 13)
    torch.testing.assert_close(
        MaskedBCE(pos_weight=positives.tolist())(outputs, samples)["loss_au"],
        F.binary_cross_entropy_with_logits(outputs["au"], stacked(samples, "gt_au"), pos_weight=positives),
    )
    expected = [1 - ccc(outputs["va"][:, i].detach().numpy(), stacked(samples, "gt_va")[:, i].numpy()) for i in (0, 1)]
    assert CCCLoss()(outputs, samples)["loss_ccc"].item() == pytest.approx(np.mean(expected), abs=1e-6)


def test_unknown_labels_count_for_nothing():
    outputs, samples = batch()
    for sample in samples[3:]:
        del sample["gt_va"], sample["gt_expr"], sample["gt_au"]
    for loss, task in ((MaskedMSE(), "va"), (MaskedCE(), "expr"), (MaskedBCE(), "au"), (CCCLoss(), "va")):
        first = {key: value[:3] for key, value in outputs.items()}
        (found,), (expected,) = loss(outputs, samples).values(), loss(first, samples[:3]).values()
        torch.testing.assert_close(found, expected)
        gradient = torch.autograd.grad(found, outputs[task])[0]
        assert gradient[:3].any() and not gradient[3:].any()
        (nothing,) = loss(outputs, [{}] * 8).values()
        assert float(nothing) == (1 if isinstance(loss, CCCLoss) else 0)
        assert not torch.autograd.grad(nothing, outputs[task])[0].any()


def test_distillation():
    outputs, samples = batch()
    for sample in samples[:2]:
        del sample["gt_expr"]
    found = DistillLoss(temperature=1.5, weights=dict(au=8))(outputs, samples)
    target = (stacked(samples, "teacher_expr").log() / 1.5).softmax(dim=1)
    each = F.kl_div((outputs["expr"] / 1.5).log_softmax(dim=1), target, reduction="none").sum(dim=1)
    weights = torch.tensor([1.0] * 2 + [0.4] * 6)
    torch.testing.assert_close(found["loss_teacher_expr"], (each * weights).mean())
    scaled = DistillLoss(temperature=1.5, scale=True)(outputs, samples)
    torch.testing.assert_close(scaled["loss_teacher_expr"], 2.25 * found["loss_teacher_expr"])
    said = F.binary_cross_entropy_with_logits(outputs["au"], stacked(samples, "teacher_au"))
    torch.testing.assert_close(found["loss_teacher_au"], 8 * 0.4 * said)
    torch.testing.assert_close(
        found["loss_teacher_va"], 0.4 * F.mse_loss(outputs["va"], stacked(samples, "teacher_va"))
    )
    agreeing = dict(outputs, expr=stacked(samples, "teacher_expr").log())
    assert float(DistillLoss(tasks=["expr"])(agreeing, samples)["loss_teacher_expr"]) == pytest.approx(0, abs=1e-6)


def test_valence_and_arousal_in_bins():
    torch.manual_seed(0)
    head = MultiTaskAffectHead((4,), dict(va=2), va_bins=20)
    outputs, samples = head([torch.randn(8, 4)]), batch()[1]
    centres = torch.linspace(-1, 1, 20)
    odds = outputs["va_bins"].softmax(dim=2)
    torch.testing.assert_close(outputs["va"], (odds * centres).sum(dim=2))
    for sample, said in zip(samples, torch.rand(8, 2, 20).softmax(dim=2), strict=True):
        sample["teacher_va_bins"] = said
    del samples[0]["gt_va"]
    truth = torch.stack([sample["gt_va"] for sample in samples[1:]])
    nearest = (truth[..., None] - centres).abs().argmin(dim=2)
    expected = F.cross_entropy(outputs["va_bins"][1:].flatten(0, 1), nearest.flatten())
    torch.testing.assert_close(BinnedCE()(outputs, samples)["loss_va_bins"], expected)
    target = (stacked(samples, "teacher_va_bins").log() / 1.5).softmax(dim=2)
    each = F.kl_div((outputs["va_bins"] / 1.5).log_softmax(dim=2), target, reduction="none").sum(dim=2).mean(dim=1)
    weights = torch.tensor([1.0] + [0.4] * 7)
    torch.testing.assert_close(DistillLoss()(outputs, samples)["loss_teacher_va"], (each * weights).mean())
    for sample in samples:  # a teacher without bins: the mean is compared
        del sample["teacher_va_bins"]
    each = (outputs["va"] - stacked(samples, "teacher_va")).square().mean(dim=1)
    torch.testing.assert_close(DistillLoss()(outputs, samples)["loss_teacher_va"], (each * weights).mean())
    with pytest.raises(ConfigError, match="set the head's va_bins=20"):
        BinnedCE()(batch()[0], samples)
    with pytest.raises(DataError, match=r"teacher_va_bins: 2×5 numbers, the head gives 2×20"):
        DistillLoss()(outputs, [dict(teacher_va_bins=torch.ones(2, 5) / 5)] * 8)


def test_wrong_labels_are_named():
    outputs, samples = batch(2)
    samples[0]["gt_expr"] = torch.tensor(7)
    with pytest.raises(DataError, match="class 7, the head has 7"):
        MaskedCE()(outputs, samples)
    samples[0]["gt_au"] = samples[1]["gt_au"] = torch.zeros(8)
    with pytest.raises(DataError, match="labels of 8 action units, the head has 12"):
        MaskedBCE()(outputs, samples)
    with pytest.raises(ConfigError, match="needs the task 'va'"):
        MaskedMSE()(dict(expr=outputs["expr"]), samples)


def test_class_weights_balance():
    weights = class_weights([90, 9, 0, 1])
    assert weights[0] * 90 == pytest.approx(weights[1] * 9) == pytest.approx(weights[3]) and weights[2] == 0
    assert sum(weight * count for weight, count in zip(weights, [90, 9, 0, 1], strict=True)) == pytest.approx(100)


def test_two_ranks_give_the_loss_and_gradient_of_one(tmp_path):
    program = Path(__file__).with_name("two_ranks.py")
    command = [os.environ.get("WARM_PYTHON", sys.executable), str(program), f"file://{tmp_path}/store"]
    other = subprocess.Popen([*command, "1"])
    done = subprocess.run([*command, "0"], capture_output=True, text=True, check=False, timeout=120)
    assert other.wait(timeout=60) == 0 and done.returncode == 0, done.stderr
    values, gradients = json.loads(done.stdout.splitlines()[-1])
    outputs, samples = batch()
    for sample in samples[5:]:
        del sample["gt_expr"]
    scale = torch.ones((), requires_grad=True)
    whole = {key: value * scale for key, value in outputs.items()}
    for loss in (MaskedCE(), CCCLoss(), DistillLoss()):
        for name, value in loss(whole, samples).items():
            assert values[name] == pytest.approx(float(value), abs=1e-5), name
            gradient = float(torch.autograd.grad(value, scale, retain_graph=True)[0])
            assert gradients[name] == pytest.approx(gradient, abs=1e-5), name
