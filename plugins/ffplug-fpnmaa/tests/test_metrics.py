"""ABAW2's figures against the published metrics, and where those differ from the competition's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_fpnmaa.evaluation import AffectMetric, best_thresholds, ccc, expression_scores, unit_scores
from ffplug_fpnmaa.structures import AffectSample

from ffplug.errors import ConfigError, DataError
from ffplug.testing.golden import image

N, SEED = 400, 41


@pytest.fixture(scope="module")
def expected():
    return json.loads((Path(__file__).parent / "golden" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def drawn():
    va = image(SEED, (N, 2), -1.2, 1.2)
    true_va = np.clip(0.5 * image(SEED + 1, (N, 2), -1, 1) + 0.5 * va, -1, 1)
    expr = image(SEED + 2, (N, 7), -1, 1)
    true_expr = (expr + image(SEED + 3, (N, 7), -0.8, 0.8)).argmax(axis=1)
    au = image(SEED + 4, (N, 12), -3, 3)
    true_au = (0.5 * au + image(SEED + 5, (N, 12), -1.5, 1.5) > 0).astype(np.float32)
    au[:, 11], true_au[:, 11] = -2, 0
    return dict(va=(np.clip(va, -0.99, 0.99), true_va), expr=(expr, true_expr), au=(au, true_au))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_valence_and_arousal(drawn, expected):
    found, true = drawn["va"]
    for column, name in enumerate(("ccc_v", "ccc_a")):
        assert ccc(found[:, column], true[:, column], eps=1e-5) == pytest.approx(expected[name], abs=1e-5)
        assert ccc(found[:, column], true[:, column]) == pytest.approx(expected[name], abs=5e-5)
    assert ccc(true[:, 0], true[:, 0]) == pytest.approx(1) and ccc(np.zeros(5), np.arange(5.0)) == 0


def test_expressions(drawn, expected):
    logits, true = drawn["expr"]
    scores = expression_scores(logits.argmax(axis=1), true, 7)
    assert scores.macro_f1 == pytest.approx(expected["expr_f1"], abs=1e-6)
    assert scores.accuracy == pytest.approx(expected["expr_acc"], abs=1e-6)
    assert scores.score == pytest.approx(expected["expr_score"], abs=1e-6)
    assert scores.confusion.tolist() == expected["expr_confusion_rows_pred"]
    without, true = logits.copy(), np.where(true == 2, 0, true)
    without[:, 2] = -9
    published = expression_scores(without.argmax(axis=1), true, 7, classes="present")
    found = (published.macro_f1, published.accuracy, published.score)
    assert found == pytest.approx(expected["expr_absent_class"], abs=1e-6)
    all_seven = expression_scores(without.argmax(axis=1), true, 7)
    assert all_seven.macro_f1 == pytest.approx(published.macro_f1 * 6 / 7)


def test_action_units(drawn, expected):
    logits, true = drawn["au"]
    for threshold, name in ((0.5, "prob"), (sigmoid(0.5), "thr0.5_on_logits")):
        scores = unit_scores(sigmoid(logits), true, threshold)
        assert scores.mean_f1 == pytest.approx(expected[f"au_f1_{name}"], abs=1e-6)
        assert scores.accuracy == pytest.approx(expected[f"au_acc_{name}"], abs=1e-6)
        assert scores.score == pytest.approx(expected[f"au_score_{name}"], abs=1e-6)
        assert scores.f1[11] == 1


def test_the_best_threshold_of_each_unit(drawn):
    logits, true = drawn["au"]
    odds = sigmoid(logits)
    chosen = best_thresholds(odds, true)
    found = unit_scores(odds, true, chosen).f1
    for threshold in np.linspace(0, 1, 101):
        assert (found >= unit_scores(odds, true, threshold).f1 - 1e-9).all()
    assert chosen[11] == 0.5 and len(set(chosen)) > 9  # the last unit never occurs
    tied = best_thresholds(np.array([[0.1], [0.2], [0.7], [0.7]]), np.array([[0], [0], [1], [1]]))
    assert tied == pytest.approx([0.45])


def samples(drawn):
    found = []
    for number in range(N):
        sample = AffectSample(metainfo=dict(sample_id=str(number), dataset="Aff-Wild2/validation", procedural=True))
        sample.pred_va = torch.tensor(drawn["va"][0][number])
        sample.pred_expr = torch.tensor(drawn["expr"][0][number].argmax())
        sample.pred_expr_probability = torch.tensor(drawn["expr"][0][number]).softmax(dim=0)
        sample.pred_au = torch.tensor(sigmoid(drawn["au"][0][number]))
        for task in ("va", "expr", "au"):
            sample.set_field(torch.as_tensor(drawn[task][1][number]), f"gt_{task}")
        found.append(sample)
    return found


def test_the_metric_gathers_everything_and_counts_nothing_twice(drawn, expected, tmp_path):
    metric = AffectMetric(threshold="logit", details=True, out_file=tmp_path / "figures.json")
    everything = samples(drawn)
    for start in range(0, N, 7):  # batches of 7: the mean of their figures would be another number
        metric.process(None, [sample.to_dict() for sample in everything[start : start + 7]])
    metric.process(None, everything[:5])
    figures = metric.evaluate(N)
    figures = {key.removeprefix("aff_wild2_validation/"): value for key, value in figures.items()}
    assert figures["VA"] == pytest.approx(expected["va_score"], abs=5e-5)
    assert figures["EXPR"] == pytest.approx(expected["expr_score"], abs=1e-6)
    assert figures["AU"] == pytest.approx(expected["au_score_thr0.5_on_logits"], abs=1e-6)
    assert figures["score"] == pytest.approx((figures["VA"] + figures["EXPR"] + figures["AU"]) / 3)
    assert figures["VA_samples"] == N and "F1_happiness" in figures and figures["F1_AU26"] == 1
    written = json.loads((tmp_path / "figures.json").read_text())["aff_wild2_validation"]
    assert written["source"].startswith("procedural") and len(written["confusion_rows_predicted"]) == 7


def test_only_what_is_known_counts(drawn, expected):
    metric = AffectMetric(prefix="some")
    everything = samples(drawn)
    for sample in everything[:100]:
        del sample.gt_va
        sample.pred_au_present = (sample.pred_au > 0.5).float()
    for sample in everything[100:]:
        sample.pred_au_present = torch.zeros(12)  # as thresholds of 1 would tell
    metric.process(None, everything)
    probability = AffectMetric(prefix="some", threshold="probability")
    probability.process(None, everything)
    figures = metric.evaluate(N)
    assert figures["some/VA_samples"] == 300 and figures["some/EXPR_samples"] == N
    assert probability.evaluate(N)["some/AU"] == pytest.approx(expected["au_score_prob"], abs=1e-6)
    assert figures["some/AU_F1"] < expected["au_f1_prob"] - 0.1
    with pytest.raises(DataError, match="no sample has both"):
        metric.process(None, [AffectSample(metainfo=dict(sample_id="one"))])
        metric.evaluate(1)
    with pytest.raises(ConfigError, match="all, present"):
        AffectMetric(classes="some")
